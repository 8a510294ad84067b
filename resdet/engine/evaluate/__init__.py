"""Evaluation: a model's detections (or classes) of a whole data set, from all processes together, and their figures."""

from resdet.engine.evaluate.detections import (
    Interrupted,
    batch_results,
    evaluate,
    evaluated_set,
    figures_of,
    mask_gaps,
    masked_images,
    predict_batch,
    predict_dataset,
)

__all__ = [
    "Interrupted",
    "batch_results",
    "evaluate",
    "evaluated_set",
    "figures_of",
    "mask_gaps",
    "masked_images",
    "predict_batch",
    "predict_dataset",
]
