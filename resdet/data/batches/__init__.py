"""Turns a data set into batches: order, padding and worker processes."""
