"""Train and test one cell."""
