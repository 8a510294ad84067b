"""Measures the time of a training step and of a prediction, and compares it with another library."""
