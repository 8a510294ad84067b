"""Computes figures from detections and ground truth."""
