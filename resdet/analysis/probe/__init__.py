"""Gradients, responses and updates by layer."""
