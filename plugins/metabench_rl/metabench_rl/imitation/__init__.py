"""Few-shot imitation: demonstrations as episodes, tested by rollouts."""
