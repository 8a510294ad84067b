"""Training and evaluation: the visible loop, checkpoints, logs, several processes."""
