"""Drawings of boxes and masks."""
