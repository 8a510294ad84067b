"""Data sets: files in a known layout, and generated ones."""
