"""Search parameters on validation episodes, with the same number of trials for every method."""
