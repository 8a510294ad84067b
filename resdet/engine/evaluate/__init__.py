"""Evaluation: a model's detections (or classes) of a whole data set, from all processes together, and their figures."""

from resdet.engine.evaluate.detections import (
    Interrupted,
    batch_results,
    evaluate,
    evaluated_set,
    figures_of,
    predict_batch,
    predict_dataset,
    scoring_notes,
)

__all__ = [
    "Interrupted",
    "batch_results",
    "evaluate",
    "evaluated_set",
    "figures_of",
    "predict_batch",
    "predict_dataset",
    "scoring_notes",
]
