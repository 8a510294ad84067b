"""Which of several detectors is better, how surely, and at what cost."""
