"""Compares several detectors: which one is better, with which certainty, and at which cost."""
