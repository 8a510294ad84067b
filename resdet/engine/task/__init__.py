"""What differs between the tasks, one object each: data, model, batches, evaluation and the figure that decides."""
