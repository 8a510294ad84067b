"""What the commands do, from Python: train, evaluate, compare, open a data set; each returns a typed object."""
