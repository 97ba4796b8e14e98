"""Attacks on finished runs, and what they are worth."""
