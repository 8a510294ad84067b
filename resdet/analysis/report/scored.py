"""The detections of a run together with the ground truth on which they were scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resdet.config import has_no_classes
from resdet.data.sets.coco import CocoDataset
from resdet.engine.evaluate import evaluated_set, images_to_score
from resdet.engine.run_folder import RunFolder
from resdet.errors import UserError
from resdet.evaluation.analysis.analyse import Analysis, analyse
from resdet.evaluation.analysis.curves import PrecisionRecall
from resdet.evaluation.coco import CocoResults, GroundTruth, read_results

SCORE = 0.5  # the lowest score of a detection that counts as found, unless the detector gives lower scores in general


@dataclass(frozen=True)
class Scored:
    """`masks` is not None if the run has figures of masks."""

    dataset: CocoDataset
    truth: GroundTruth
    results: CocoResults
    boxes: Analysis
    masks: Analysis | None

    @property
    def score(self) -> float:
        """The lowest score of a detection that counts as found."""
        return self.boxes.score_threshold


def open_scored(run: RunFolder, dataset: CocoDataset | None = None) -> Scored:
    """Scores the run's predictions.json again, with the matches and curves behind the figures.

    `dataset` are the images of that evaluation, if they are open already. Raises UserError, with the
    remedy, if the run has no predictions or its val set cannot be opened.
    """
    if has_no_classes(run.config.model):
        raise UserError("the run trained a first stage alone, whose proposals have no classes")
    if run.predictions is None:
        raise UserError(
            f"the run has no predictions.json, the detections of its last evaluation; "
            f"resdet evaluate {run.path} --output {run.path} writes it"
        )
    if dataset is None:
        dataset = evaluated_set(run.config)
    truth = dataset.ground_truth(count_skipped=run.config.eval.count_skipped)
    results = read_results(run.predictions, truth)
    results.unreadable = run.unreadable
    has_masks = "segm/AP" in run.figures and results.segmentations is not None
    images = images_to_score(dataset, results, run.config)
    masked = truth.masked_images(images) if has_masks else []
    boxes = analyse(truth, results, image_ids=images, score_threshold=SCORE)
    score = own_score(boxes.curves)
    if score < SCORE:
        boxes = analyse(truth, results, image_ids=images, score_threshold=score)
    masks = None
    if masked:
        masks = analyse(truth, results, iou_type="segm", image_ids=masked, score_threshold=score)
    return Scored(dataset, truth, results, boxes, masks)


def own_score(curves: PrecisionRecall) -> float:
    """SCORE, or the median over classes of the threshold with the largest F1 at IoU 0.5, if that is lower, in steps of
    0.05. A detector that was trained briefly may have no score of 0.5 at all.
    """
    best = curves.best_score[np.isfinite(curves.best_score)]
    return min(SCORE, max(0.05, round(0.05 * np.floor(np.median(best) / 0.05), 2))) if len(best) else SCORE
