"""Changes training samples as `data.augment.transforms` lists: each a pure function of the sample and of numbers drawn."""
