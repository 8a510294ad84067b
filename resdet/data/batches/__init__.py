"""From a data set to batches: order, padding, workers."""
