"""Loggers, which carry records to experiment trackers by event hooks."""
