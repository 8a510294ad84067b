"""Non-maximum suppression of all images and groups of a batch in one kernel, without a wait for the device.

The candidates of an image are sorted by group and score. One program keeps the boxes of the groups that begin in its
part of that list: 64 candidates after another, each compared with the boxes of its group that were kept before, and
then with one another. The boxes that were kept are the only workspace: 16 bytes a candidate.

The result is that of torchvision's kernel on a CPU, bit for bit: the same operations in the same order without fused
multiplication and addition, and ties are decided by the position.
"""

from __future__ import annotations

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int64
from torch import Tensor

BLOCK = 64  # candidates that are compared with one another at a time
WARPS = 8
NO_GROUP = 2**62  # of what is not valid: behind all groups


def padded_nms(
    boxes: Float[Tensor, "N M 4"],
    scores: Float[Tensor, "N M"],
    groups: Int64[Tensor, "N M"],
    valid: Bool[Tensor, "N M"],
    iou_threshold: float,
    keep: int,
    *,
    warps: int = WARPS,
) -> Int64[Tensor, "N {keep}"]:
    """Positions of the `keep` best remaining boxes of each image, best first, filled up with -1.

    Boxes are float32 or float64. Valid entries are finite.
    """
    images, count = scores.shape
    if count == 0:
        return groups.new_full((images, keep), -1)
    order = scores.argsort(dim=1, descending=True, stable=True)
    of_rank = torch.where(valid, groups, NO_GROUP).gather(1, order)  # the group of the first, second, ... best
    sorted_groups, ranks = of_rank.sort(dim=1, stable=True)
    positions = order.gather(1, ranks)
    candidates = boxes.gather(1, positions[..., None].expand(-1, -1, 4)).contiguous()
    kept = torch.zeros_like(sorted_groups, dtype=torch.int32)
    _greedy[triton.cdiv(count, BLOCK), images](
        candidates,
        sorted_groups,
        torch.empty_like(candidates),
        kept,
        boxes.new_full((1,), largest_below(iou_threshold, boxes.dtype)),
        count,
        keep,
        NO_GROUP=NO_GROUP,
        BLOCK=BLOCK,
        num_warps=warps,  # pyright: ignore[reportCallIssue]
        enable_fp_fusion=False,  # pyright: ignore[reportCallIssue]
    )
    survivors = torch.zeros_like(kept).scatter(1, ranks, kept).cumsum(1)  # how many there are up to each rank
    wanted = torch.arange(1, keep + 1, device=boxes.device, dtype=survivors.dtype).expand(images, keep).contiguous()
    found = torch.searchsorted(survivors, wanted)
    return torch.where(found < count, order.gather(1, found.clamp(max=count - 1)), -1)


def largest_below(threshold: float, dtype: torch.dtype) -> float:
    """The largest number of this type that is not above the threshold.

    An overlap of this type is above the one exactly if it is above the other.
    """
    rounded = torch.tensor(threshold, dtype=dtype)
    if rounded.item() > threshold:
        rounded = torch.nextafter(rounded, torch.tensor(-math.inf, dtype=dtype))
    return rounded.item()


@triton.jit
@no_type_check
def _overlaps(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2, threshold):
    """Whether each box of a (rows) overlaps each of b (columns) by more than the threshold."""
    width = tl.maximum(tl.minimum(ax2[:, None], bx2[None, :]) - tl.maximum(ax1[:, None], bx1[None, :]), 0.0)
    height = tl.maximum(tl.minimum(ay2[:, None], by2[None, :]) - tl.maximum(ay1[:, None], by1[None, :]), 0.0)
    shared = width * height
    areas = ((ax2 - ax1) * (ay2 - ay1))[:, None] + ((bx2 - bx1) * (by2 - by1))[None, :]
    if shared.dtype == tl.float32:
        return tl.div_rn(shared, areas - shared) > threshold
    else:
        return shared / (areas - shared) > threshold


@triton.jit(do_not_specialize=["count", "keep"])
@no_type_check
def _greedy(
    boxes_ptr, groups_ptr, list_ptr, kept_ptr, threshold_ptr, count, keep, NO_GROUP: tl.constexpr, BLOCK: tl.constexpr
):
    """Marks the kept boxes of all groups that begin in part `program_id(0)` of image `program_id(1)`."""
    image = tl.program_id(1).to(tl.int64)
    boxes_ptr += image * count * 4
    list_ptr += image * count * 4
    groups_ptr += image * count
    kept_ptr += image * count
    threshold = tl.load(threshold_ptr)
    lane = tl.arange(0, BLOCK)

    part = tl.program_id(0) * BLOCK + lane
    group = tl.load(groups_ptr + part, mask=part < count, other=NO_GROUP)
    before = tl.load(groups_ptr + part - 1, mask=(part > 0) & (part < count), other=-1)
    begins = (group != before) & (group != NO_GROUP)
    first = tl.min(tl.where(begins, part, count), axis=0)
    last_group = tl.max(tl.where(begins, group, -1), axis=0)  # its end may be far behind this part

    start = first  # of the block
    listed = 0  # boxes of the group that is open at `start` in the list, which begins at `first`
    while start < count:
        at = start + lane
        group = tl.load(groups_ptr + at, mask=at < count, other=NO_GROUP)
        mine = group <= last_group
        x1 = tl.load(boxes_ptr + at * 4, mask=mine, other=0.0)
        y1 = tl.load(boxes_ptr + at * 4 + 1, mask=mine, other=0.0)
        x2 = tl.load(boxes_ptr + at * 4 + 2, mask=mine, other=0.0)
        y2 = tl.load(boxes_ptr + at * 4 + 3, mask=mine, other=0.0)
        open_group = tl.min(group, axis=0)

        hidden = tl.zeros([BLOCK], dtype=tl.int32)
        begin = 0
        while begin < listed:
            entry = begin + lane
            real = entry < listed
            place = list_ptr + (first + entry) * 4
            kx1 = tl.load(place, mask=real, other=0.0)
            ky1 = tl.load(place + 1, mask=real, other=0.0)
            kx2 = tl.load(place + 2, mask=real, other=0.0)
            ky2 = tl.load(place + 3, mask=real, other=0.0)
            over = _overlaps(kx1, ky1, kx2, ky2, x1, y1, x2, y2, threshold) & real[:, None]
            hidden = tl.maximum(hidden, tl.max(over.to(tl.int32), axis=0))
            begin += BLOCK
        alive = mine & ((group != open_group) | ((hidden == 0) & (listed < keep)))

        # Among one another: a box stays if no box before it that stays overlaps it. Each round settles one more.
        over = _overlaps(x1, y1, x2, y2, x1, y1, x2, y2, threshold)
        over = (over & (group[:, None] == group[None, :]) & (lane[:, None] < lane[None, :])).to(tl.int32)
        stays = alive.to(tl.int32)
        changes = 1
        while changes > 0:
            suppressed = tl.max(over * stays[:, None], axis=0)
            settled = tl.where(alive & (suppressed == 0), 1, 0)
            changes = tl.sum((settled != stays).to(tl.int32), axis=0)
            stays = settled
        tl.store(kept_ptr + at, stays, mask=mine)

        # The list for the next block: that of the group which is open at its end.
        final_group = tl.max(tl.where(mine, group, -1), axis=0)
        if final_group != open_group:
            listed = 0
        append = (stays > 0) & (group == final_group)
        entry = listed + tl.cumsum(append.to(tl.int32), axis=0) - 1
        place = list_ptr + (first + entry) * 4
        tl.debug_barrier()  # all threads have read the list
        tl.store(place, x1, mask=append)
        tl.store(place + 1, y1, mask=append)
        tl.store(place + 2, x2, mask=append)
        tl.store(place + 3, y2, mask=append)
        tl.debug_barrier()  # and see what is appended
        listed += tl.sum(append.to(tl.int32), axis=0)
        start = tl.where(tl.sum(mine.to(tl.int32), axis=0) < BLOCK, count, start + BLOCK)
