"""Time of a step and of a prediction, beside a peer."""
