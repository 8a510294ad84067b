"""Trains and evaluates models: the training loop, checkpoints, logs and several processes."""
