"""Evaluates a model on a whole data set, over all processes: its detections or classes, and their figures."""

from resdet.engine.evaluate.detections import (
    Interrupted,
    batch_results,
    chosen_metric,
    evaluate,
    evaluated_set,
    figures_of,
    images_to_score,
    predict_batch,
    predict_dataset,
    scoring_notes,
    unreadable_notes,
)

__all__ = [
    "Interrupted",
    "batch_results",
    "chosen_metric",
    "evaluate",
    "evaluated_set",
    "figures_of",
    "images_to_score",
    "predict_batch",
    "predict_dataset",
    "scoring_notes",
    "unreadable_notes",
]
