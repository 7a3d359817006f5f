"""Finds plugins, isolates broken ones, and turns names into classes."""
