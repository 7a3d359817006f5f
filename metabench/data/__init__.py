"""Datasets as packed files, and episodes as indices into them."""
