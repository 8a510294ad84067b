"""Trains a model: one loop and one step, and the parts around them (build, resume, save)."""

from resdet.engine.train.rate_test import RateTest
from resdet.engine.train.start import Trained, find_learning_rate, train, train_run

__all__ = ["RateTest", "Trained", "find_learning_rate", "train", "train_run"]
