"""Checks that every algorithm must pass."""
