"""Whether the figures of a run hold: its files agree, and its kept weights give the same results again."""
