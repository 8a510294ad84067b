"""Matches each candidate box to the ground truth (Ren et al. 2015, section 3.1.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from resdet.ops.boxes import box_area, box_iou, shared_area

CHUNK = 16  # ground truths compared at a time: limits memory, does not change the result
CROWD_OVERLAP = 0.7  # a candidate with this fraction of its area in a crowd region is not an example (Detectron)


@dataclass(frozen=True)
class Matches:
    """For each candidate, its best ground truth, and whether it is a positive or a negative example.

    A candidate that is neither positive nor negative does not contribute to the losses.
    """

    index: Int64[Tensor, "N A"]
    positive: Bool[Tensor, "N A"]
    negative: Bool[Tensor, "N A"]


@dataclass(frozen=True)
class Matcher:
    """Positive at `foreground_iou` or more, negative below `background_iou` and from `background_iou_low` up.

    With `low_quality`, the candidates with the largest overlap with a ground truth are also positive, even if it is
    small (Ren et al. 2015, condition i).
    """

    foreground_iou: float
    background_iou: float
    low_quality: bool = False
    background_iou_low: float = 0.0

    def __call__(
        self,
        candidates: Float[Tensor, "M A 4"],
        boxes: Float[Tensor, "N G 4"],
        crowd: Bool[Tensor, "N G"],
        valid: Bool[Tensor, "N G"],
    ) -> Matches:
        """Matches `candidates` (M is N, or 1 if all images share them) to the ground truth of each image."""
        count = (boxes.shape[0], candidates.shape[1])
        best = boxes.new_zeros(count)
        index = boxes.new_zeros(count, dtype=torch.int64)
        is_best = boxes.new_zeros(count, dtype=torch.bool)
        in_crowd = boxes.new_zeros(count, dtype=torch.bool)
        matchable = valid & ~crowd
        for start in range(0, boxes.shape[1], CHUNK):
            chunk = slice(start, start + CHUNK)
            iou = box_iou(candidates, boxes[:, chunk]).masked_fill(~matchable[:, None, chunk], 0.0)
            chunk_best, chunk_index = iou.max(dim=2)
            better = chunk_best > best
            best = torch.where(better, chunk_best, best)
            index = torch.where(better, chunk_index + start, index)
            if self.low_quality and candidates.shape[1]:  # without candidates there is no best one
                closest = iou.amax(dim=1, keepdim=True)
                is_best = is_best | ((iou == closest) & (closest > 0)).any(dim=2)
            in_crowd = in_crowd | self._in_crowd(candidates, boxes[:, chunk], (crowd & valid)[:, chunk])
        positive = (best >= self.foreground_iou) | is_best
        negative = (best < self.background_iou) & (best >= self.background_iou_low) & ~positive & ~in_crowd
        return Matches(index, positive, negative)

    @staticmethod
    def _in_crowd(
        candidates: Float[Tensor, "M A 4"], regions: Float[Tensor, "N g 4"], is_region: Bool[Tensor, "N g"]
    ) -> Bool[Tensor, "N A"]:
        share = shared_area(candidates[:, :, None], regions[:, None]) / box_area(candidates)[:, :, None].clamp(min=1e-6)
        return ((share >= CROWD_OVERLAP) & is_region[:, None]).any(dim=2)
