"""Other RL libraries on our environments: one small module each, each an extra."""
