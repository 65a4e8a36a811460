"""Trains judges: from planted flaws to examples, a small model, and the recipe ``judge-sft``."""
