"""Runs many cells."""
