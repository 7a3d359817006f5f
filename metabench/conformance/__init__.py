"""Checks that every plugin has to pass."""
