"""Ray as an executor of metabench."""
