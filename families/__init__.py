"""Families of environments beside the first five: each an extra, each a real game or simulator."""
