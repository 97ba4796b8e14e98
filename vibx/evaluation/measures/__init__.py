"""One measure a module."""
