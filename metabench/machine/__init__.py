"""The process and the device; knows nothing of few-shot learning."""
