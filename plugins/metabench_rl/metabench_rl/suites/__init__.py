"""Suites of this distribution."""
