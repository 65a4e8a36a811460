"""Assertions of the inheritable suite explain themselves like those of ordinary tests."""

import pytest

pytest.register_assert_rewrite("reagent_env.sandboxes.conformance")
