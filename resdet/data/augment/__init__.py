"""Changes training samples as `data.augment` says: pure functions of the sample and of numbers drawn."""
