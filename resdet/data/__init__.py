"""Turns files into batches."""
