"""Builds a model from a config."""
