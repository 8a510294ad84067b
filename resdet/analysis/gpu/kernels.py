"""The operators that have a kernel for a GPU beside what they replace: whether the results are equal, and the times."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms as torchvision_batched_nms
from torchvision.ops import roi_align as torchvision_roi_align

from resdet.analysis.benchmark.timing import alternate
from resdet.analysis.gpu.record import Record, Row
from resdet.analysis.gpu.scale import Scale, Setting
from resdet.ops.nms import _padded_nms
from resdet.ops.roi_align import assign_levels
from resdet.ops.roi_align import roi_align as by_embedding_bag

Runs = dict[str, Callable[..., Any]]
Candidates = tuple[Tensor, Tensor, Tensor, Tensor]
STRIDES = (4, 8, 16, 32)
CLASSES = 80
KEEP = 1000
WARPS = (4, 8, 16)


def kernels(record: Record, setting: Setting) -> None:
    """NMS of proposals and of classes, and RoIAlign with its gradient."""
    measure_nms(record, setting)
    measure_roi_align(record, setting)


def measure_nms(record: Record, setting: Setting) -> None:
    """Milliseconds of the kernel and of torchvision's, image by image, which waits for each."""
    from resdet.ops.kernels.nms import padded_nms  # an installation for CPUs has no Triton

    device, count = setting.torch_device, setting.scale.proposals
    for images in setting.scale.batches:
        cases = {
            "5 levels": candidates(images, 5 * count, 5, real=1.0),
            f"{CLASSES} classes, 2 % real": candidates(images, CLASSES * count, CLASSES, real=0.02),
            f"{CLASSES} classes, all real": candidates(images, CLASSES * count, CLASSES, real=1.0),
            "one group": candidates(images, 2 * count, 1, real=1.0),
        }
        for name, given in cases.items():
            boxes, scores, groups, valid = given
            there = boxes.to(device), scores.to(device), groups.to(device), valid.to(device)
            runs: Runs = {
                f"kernel, {warps} warps": partial(padded_nms, *there, 0.5, KEEP, warps=warps) for warps in WARPS
            }
            runs["torchvision"] = partial(image_by_image, *there)
            found = padded_nms(*there, iou_threshold=0.5, keep=KEEP).cpu()
            equal = torch.equal(found, _padded_nms(*given, iou_threshold=0.5, keep=KEEP))
            row = {"images": images, "candidates": name, "equals the CPU": str(equal)}
            record.row("kernels", "NMS, milliseconds", row | milliseconds(runs, device, setting.scale))


def image_by_image(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor) -> None:
    for image in range(boxes.shape[0]):
        real = valid[image]
        _ = torchvision_batched_nms(boxes[image, real], scores[image, real], groups[image, real], 0.5)[:KEEP]


def candidates(images: int, count: int, groups: int, *, real: float) -> Candidates:
    """Boxes of which many overlap; `real` is the share of valid ones."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(images, count, 2, generator=generator) * 800
    boxes = torch.cat([corner, corner + 20 + torch.rand(images, count, 2, generator=generator) * 300], dim=-1)
    group = torch.randint(0, groups, (images, count), generator=generator)
    valid = torch.rand(images, count, generator=generator) < real
    return boxes, torch.rand(images, count, generator=generator), group, valid


def measure_roi_align(record: Record, setting: Setting) -> None:
    """Milliseconds of the weighted sum, of torchvision's kernel a level, and of the kernel over all levels."""
    from resdet.ops.kernels.roi_align import roi_align as by_kernel

    forms = {"embedding_bag": by_embedding_bag, "torchvision, a level each": level_by_level, "kernel": by_kernel}
    device, scale = setting.torch_device, setting.scale
    height, width = scale.size
    generator = torch.Generator().manual_seed(0)
    for images in scale.batches:
        corner = torch.rand(images, scale.regions, 2, generator=generator) * min(scale.size) * 0.7
        extent = torch.rand(images, scale.regions, 2, generator=generator) ** 2 * min(scale.size)
        boxes = torch.cat([corner, corner + 8 + extent], dim=-1).to(device)
        for dtype in (torch.bfloat16, torch.float32):
            maps = [
                torch.randn(images, scale.channels, height // stride, width // stride, generator=generator)
                .to(device, dtype, memory_format=torch.channels_last)
                .requires_grad_()
                for stride in STRIDES
            ]
            for resolution in scale.bins:
                row: Row = {"images": images, "type": str(dtype).removeprefix("torch."), "bins": resolution}
                compare_forms(record, forms, maps, boxes, resolution, row, setting)


def compare_forms(
    record: Record,
    forms: dict[str, Callable[..., Tensor]],
    maps: list[Tensor],
    boxes: Tensor,
    resolution: int,
    row: Row,
    setting: Setting,
) -> None:
    """Records the times of all forms, forward alone and with the backward pass, and their largest relative error."""
    levels = assign_levels(boxes, 2, 5) - 2
    runs: Runs = {
        name: partial(form, maps, STRIDES, boxes, levels, resolution=resolution) for name, form in forms.items()
    }
    exact = [level.detach().float() for level in maps]
    truth = by_embedding_bag(exact, STRIDES, boxes, levels, resolution=resolution)
    errors = {
        name: float((run().detach().float() - truth).norm() / truth.norm()) if truth.norm() else 0.0
        for name, run in runs.items()
    }
    record.row("kernels", "RoIAlign, relative error of the result", dict(row) | errors)
    grad = torch.randn(truth.shape).to(boxes)

    def backward(run: Callable[..., Any]) -> None:
        pooled = run()
        _ = torch.autograd.grad(pooled, maps, grad.to(pooled))

    both: Runs = {name: partial(backward, run) for name, run in runs.items()}
    for title, functions in (("forward", runs), ("forward and backward", both)):
        times = milliseconds(functions, boxes.device, setting.scale)
        record.row("kernels", f"RoIAlign, milliseconds {title}", dict(row) | times)


def level_by_level(
    features: list[Tensor], strides: tuple[int, ...], boxes: Tensor, levels: Tensor, *, resolution: int
) -> Tensor:
    """As torchvision's detectors pool: the regions of each level are looked up, which waits for the device."""
    image = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(
        -1, boxes.shape[1], 1
    )
    regions, flat = torch.cat([image, boxes], dim=-1).flatten(0, 1), levels.flatten()
    pooled = features[0].new_zeros(len(flat), features[0].shape[1], resolution, resolution)
    for level, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        members = (flat == level).nonzero().squeeze(1)
        options = {"spatial_scale": 1 / stride, "sampling_ratio": 2, "aligned": True}
        # its kernels have no bf16
        found = torchvision_roi_align(feature.float(), regions[members], resolution, **options).to(pooled)
        pooled = pooled.index_put((members,), found)
    return pooled


def milliseconds(runs: Runs, device: torch.device, scale: Scale) -> dict[str, float]:
    """The median of each, one after another in turns."""
    seconds = alternate([(run, ()) for run in runs.values()], scale.rounds, device, warmup=scale.warmup)
    return {name: 1e3 * statistics.median(times) for name, times in zip(runs, seconds, strict=True)}
