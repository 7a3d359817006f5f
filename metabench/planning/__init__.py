"""YAML becomes a validated suite, and the suite becomes cells."""
