"""Trains a model: one loop and one step, and the parts around them (build, resume, save)."""

from resdet.engine.train.start import Trained, train, train_run

__all__ = ["Trained", "train", "train_run"]
