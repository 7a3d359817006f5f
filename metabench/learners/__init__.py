"""Trained learners: apply what a run has kept to images of one's own."""
