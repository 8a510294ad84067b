"""The cost of a detector for one image: parameters and multiply-adds, split into trunk, neck, RPN and heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resdet.config import AugmentConfig, Config
from resdet.data.batches.collate import padded_shape, size_divisor
from resdet.data.images.decode import resized_size
from resdet.data.sets.coco import CocoDataset
from resdet.engine.checkpoint import without_weights
from resdet.models.backbones.__main__ import FLOPS
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.structures import Batch

T = TypeVar("T")

NOT_COUNTED = "RoI pooling, NMS, normalisation, activations and the resizing of images"


@dataclass(frozen=True)
class Parts:
    """One number for each part of a detector; `trunk` is the backbone, without layers that run on each region."""

    trunk: int
    neck: int
    rpn: int
    heads: int

    @property
    def total(self) -> int:
        return self.trunk + self.neck + self.rpn + self.heads

    def to_dict(self) -> dict[str, int]:
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class Cost:
    """`size` is (height, width) in pixels of the padded image that multiply-adds are counted for."""

    parameters: Parts
    multiply_adds: Parts
    size: tuple[int, int]
    proposals: int  # the number of regions that the heads process

    def to_dict(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters.to_dict(),
            "multiply_adds": self.multiply_adds.to_dict(),
            "size": list(self.size),
            "proposals": self.proposals,
        }


def cost(config: Config, num_classes: int, size: tuple[int, int]) -> Cost:
    """The cost of a prediction for one image of `size` (height, width), with the number of proposals that the config
    keeps.

    Convolutions and matrix products are counted (one multiply-add is two FLOPs), and deformable convolutions are
    counted as ordinary ones; NOT_COUNTED names the operations that are not counted. The model runs on the meta device,
    so the largest network takes a second.

    Raises UserError for a config whose parts do not fit together.
    """
    with torch.device("meta"):
        model = build_model(without_weights(config).model, num_classes).eval()
        shape = padded_shape([size], size_divisor(config.model))
        batch = Batch(images=torch.zeros(1, 3, *shape, dtype=torch.uint8), sizes=torch.tensor([size]))
    return Cost(parameters(model), multiply_adds(model, batch), shape, model.test_limits.proposals)


def parameters(model: RCNN) -> Parts:
    """The number of learned values without running statistics; the scale and offset of a frozen norm are included."""
    heads = _parameters(model.roi_heads) if model.roi_heads else 0
    return Parts(_parameters(model.backbone), _parameters(model.neck), _parameters(model.rpn), heads)


def multiply_adds(model: RCNN, batch: Batch) -> Parts:
    """The multiply-adds of `model.predict(batch)` for each part; a model and a batch on the meta device
    are sufficient."""
    features, trunk = _counted(lambda: model.backbone(model.normalized(batch)))
    features, neck = _counted(lambda: model.neck(features))
    proposals, rpn = _counted(lambda: model.rpn.proposals(model.rpn(features), batch.sizes, model.test_limits))
    second_stage = model.roi_heads
    if second_stage is None:
        return Parts(trunk, neck, rpn, 0)
    _, heads = _counted(lambda: second_stage.predict(features, proposals, batch.sizes))
    return Parts(trunk, neck, rpn, heads)


def typical_size(dataset: CocoDataset, augment: AugmentConfig) -> tuple[int, int]:
    """The test-time height and width of the image with the median area, as a typical size of the data set."""
    sizes = [
        resized_size(int(height), int(width), augment.test_short_side, augment.max_side)
        for height, width in zip(dataset.heights, dataset.widths, strict=True)
    ]
    order = np.argsort([math.prod(size) for size in sizes], kind="stable")
    return sizes[int(order[len(order) // 2])]


def _parameters(module: nn.Module) -> int:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(tensor.numel() for name, tensor in module.state_dict().items() if not name.endswith(statistics))


def _counted(function: Callable[[], T]) -> tuple[T, int]:
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
        result = function()
    return result, counter.get_total_flops() // 2
