"""Trains a model: one loop and one step, and the parts around them (build, resume, save)."""

from resdet.engine.train.start import train

__all__ = ["train"]
