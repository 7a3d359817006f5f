"""The process and the device, independent of few-shot learning."""
