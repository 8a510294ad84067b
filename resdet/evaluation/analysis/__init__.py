"""Analyses behind the figures: matches, curves, types of errors, uncertainty."""
