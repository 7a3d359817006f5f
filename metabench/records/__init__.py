"""Records, and their files on disk."""
