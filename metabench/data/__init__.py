"""Store datasets as packed files; sample episodes as indices."""
