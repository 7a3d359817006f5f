"""Statistics and standings; numpy only."""
