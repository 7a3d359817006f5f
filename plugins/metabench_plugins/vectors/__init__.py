"""Vectors with labels, from files."""
