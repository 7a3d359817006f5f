"""Run many cells."""
