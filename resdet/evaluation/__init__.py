"""From detections and ground truth to figures."""
