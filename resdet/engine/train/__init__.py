"""Training: one loop, one step, and what surrounds them (what to build, what to resume from, when to save)."""

from resdet.engine.train.start import train

__all__ = ["train"]
