"""Exchange with other code: episodes go out, and results come back."""
