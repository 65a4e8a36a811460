"""Modules beside the tests, which are no package."""

from __future__ import annotations

import os
import sys

import pytest

pytest.register_assert_rewrite("reagent_env.testing.reward_model_contract")
sys.path.append(os.path.dirname(__file__))
