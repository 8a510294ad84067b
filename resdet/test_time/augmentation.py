"""Test-time augmentation: merges the detections for an image at several sizes and mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from resdet.ops.dense import zero_padding
from resdet.structures import Batch, Detections
from resdet.test_time.refinement import union
from resdet.test_time.region_detector import RegionDetector, Suppress
from resdet.test_time.views import mirrored, mirrored_boxes, resized
from resdet.test_time.voting import vote


class AugmentedDetector(nn.Module):
    """The union of the detections of all views, after NMS (as Detectron2's GeneralizedRCNNWithTTA merges them) or what
    takes its place.

    Masks, if there are any, are predicted for the final boxes in the original batch.

    Args:
        detector: predicts each view.
        factors: sizes of the views, relative to the size of the batch.
        flip: predict each view also mirrored.
        merge: chooses the detections among those of all views; None: as the detector does.
        voting_iou: detections with at least this overlap vote; None: each keeps its box.
    """

    def __init__(
        self,
        detector: RegionDetector,
        *,
        factors: Sequence[float],
        flip: bool,
        merge: Suppress | None = None,
        voting_iou: float | None = None,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.factors = tuple(factors)
        self.flip = flip
        self.merge = merge or detector.suppress
        self.voting_iou = voting_iou

    @torch.no_grad()
    def predict(self, batch: Batch) -> Detections:
        """Detections in pixels of the padded input."""
        seen = [self._view(batch, factor) for factor in self.factors]
        seen += [self._mirrored_view(batch, factor) for factor in self.factors] if self.flip else []
        candidates = union(*seen)
        detections = self.merge(candidates, self.detector.limits)
        if self.voting_iou is not None:
            detections = vote(detections, candidates, iou=self.voting_iou)
        return self.detector.add_masks(batch, detections)

    def _view(self, batch: Batch, factor: float) -> Detections:
        detections = self.detector.detect(resized(batch, factor, divisor=self.detector.size_divisor))
        return replace(detections, boxes=detections.boxes / factor)

    def _mirrored_view(self, batch: Batch, factor: float) -> Detections:
        view = resized(batch, factor, divisor=self.detector.size_divisor)
        detections = self.detector.detect(mirrored(view))
        boxes = zero_padding(mirrored_boxes(detections.boxes, view.sizes), detections.valid)
        return replace(detections, boxes=boxes / factor)
