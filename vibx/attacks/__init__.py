"""Attacks on classifiers. They see a callable, bounds [0, 1], labels and keys, nothing of vibx."""
