"""Reads and transforms images, and rasterizes masks."""
