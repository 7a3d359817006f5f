"""Intervals, paired tests, standings and the gate; imports no torch."""
