"""Trains and tests one cell."""
