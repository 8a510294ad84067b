"""Draws boxes and masks on images."""
