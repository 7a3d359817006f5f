"""What carries records to experiment trackers, by the public event hooks."""
