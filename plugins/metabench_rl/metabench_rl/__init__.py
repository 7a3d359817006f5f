"""Meta-reinforcement learning for metabench."""
