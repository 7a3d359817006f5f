"""A static site of many runs: relative links only, no server, each page one file."""
