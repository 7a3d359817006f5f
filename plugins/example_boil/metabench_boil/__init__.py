"""BOIL for metabench."""
