"""Detections on image files."""
