"""Opens data sets: files in a known layout, and generated ones."""
