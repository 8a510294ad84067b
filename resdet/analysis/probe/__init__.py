"""Measures gradients, responses and updates of each layer of a network."""
