"""Non-maximum suppression with a result of fixed size, so that it can be part of one graph."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import nms as torchvision_nms


def batched_nms(
    boxes: Float[Tensor, "N M 4"],
    scores: Float[Tensor, "N M"],
    groups: Int64[Tensor, "N M"],
    valid: Bool[Tensor, "N M"],
    *,
    iou_threshold: float,
    keep: int,
) -> tuple[Int64[Tensor, "N keep"], Bool[Tensor, "N keep"]]:
    """Greedy NMS within each image and group (a pyramid level or a class).

    Returns the positions of the `keep` best remaining boxes of each image, best first, and a mask of the valid ones;
    the other positions are 0. Of equal scores the first position is best. A CPU uses torchvision's kernel for each
    group; a GPU has a kernel for the whole batch with the same result, bit for bit (kernels/nms.py).
    """
    index = _padded_nms(boxes.detach(), scores.detach(), groups, valid, iou_threshold, keep)
    return index.clamp(min=0), index >= 0


@torch.library.custom_op(
    "resdet::padded_nms",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor boxes, Tensor scores, Tensor groups, Tensor valid, float iou_threshold, int keep) -> Tensor",
)
def _padded_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, keep: int
) -> Tensor:
    """The positions of the remaining boxes, best first, filled up with -1: (N, keep)."""
    result = groups.new_full((boxes.shape[0], keep), -1)
    for image in range(boxes.shape[0]):
        candidates = valid[image].nonzero().squeeze(1)
        chosen = _by_group(
            boxes[image, candidates], scores[image, candidates], groups[image, candidates], iou_threshold
        )
        survivors = candidates[chosen[:keep]]
        result[image, : len(survivors)] = survivors
    return result


@_padded_nms.register_kernel("cuda")
def _(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, keep: int) -> Tensor:
    from resdet.ops.kernels.nms import padded_nms  # an installation for CPUs has no Triton

    return padded_nms(boxes, scores, groups, valid, iou_threshold, keep)


@_padded_nms.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, iou_threshold: float, keep: int) -> Tensor:
    return groups.new_empty((boxes.shape[0], keep))


def _by_group(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """One group after another: the time grows with the square of the number of compared boxes."""
    order = groups.argsort(stable=True)
    counts = groups.bincount().tolist()
    kept = [part[torchvision_nms(boxes[part], scores[part], iou_threshold)] for part in order.split(counts)]
    survivors = torch.cat(kept).sort().values if kept else order
    return survivors[scores[survivors].argsort(descending=True, stable=True)]
