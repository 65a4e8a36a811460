"""Engines that sample tokens, behind one protocol."""
