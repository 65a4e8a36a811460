"""Measures a reward model on data whose flaws are known: ranking, calibration, localisation, attacks.

``python -m pip install 'reagent-env[judge-eval]'`` brings what the probes and the figure need.
"""
