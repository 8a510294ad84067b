"""Predicts detections on image files."""
