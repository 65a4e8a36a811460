"""Policies: what is trained, by name, folder or hub id."""
