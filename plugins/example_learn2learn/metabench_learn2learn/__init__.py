"""learn2learn's learners for metabench."""
