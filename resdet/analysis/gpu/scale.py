"""The two sizes of the measurement: as on a GPU, and tiny, so that the script is proven on any machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from resdet.config import Config, load_config
from resdet.engine.distributed import World, choose_device


@dataclass(frozen=True)
class Scale:
    """The sizes of everything that is measured.

    Args:
        config: the shipped config of Faster R-CNN, whose mask head makes it Mask R-CNN.
        overrides: keys of both.
        size: height and width of the images in pixels, before padding.
        batches: images a step, the most valuable first.
        rounds: measured runs of each contestant, after `warmup` others.
        images: the files that the loader reads, of `image_size`.
        proposals: candidates of each level and class for NMS.
        regions, channels, bins: of RoIAlign, an image.
    """

    config: str
    overrides: tuple[str, ...]
    size: tuple[int, int]
    batches: tuple[int, ...]
    rounds: int
    warmup: int
    images: int
    image_size: tuple[int, int]
    proposals: int
    regions: int
    channels: int
    bins: tuple[int, ...]


FULL = Scale(
    config="faster_rcnn_r50_fpn_1x_coco",
    overrides=("train.amp=bf16",),
    size=(800, 1216),
    batches=(16, 8, 2),
    rounds=5,
    warmup=3,
    images=256,
    image_size=(480, 640),
    proposals=1000,
    regions=512,
    channels=256,
    bins=(7, 14),
)
SMALL = Scale(
    config="faster_rcnn_r18_fpn_1x_coco",
    overrides=("model.rpn.pre_nms_train=50", "model.rpn.proposals_train=20", "model.rpn.pre_nms_test=50",
        "model.rpn.proposals_test=20", "model.box_head.batch_size_per_image=8", "model.box_head.fc_dim=32",
        "model.box_head.detections=10", "data.augment.short_side=[64]", "data.augment.max_side=96", "data.workers=0"),
    size=(64, 96),
    batches=(2, 1),
    rounds=1,
    warmup=1,
    images=8,
    image_size=(48, 64),
    proposals=2,
    regions=2,
    channels=8,
    bins=(2,),
)  # fmt: skip
SCALES = {"full": FULL, "small": SMALL}
MODELS = {"Mask R-CNN": ("model.mask_head.name=fcn",), "Faster R-CNN": ()}


@dataclass(frozen=True)
class Setting:
    """Where and how much a part measures, and until when (a time of `time.time`)."""

    device: str
    scale: Scale
    until: float

    @property
    def torch_device(self) -> torch.device:
        """Raises UserError for `cuda` without a GPU."""
        return choose_device(self.device, World())

    @property
    def seconds_left(self) -> float:
        return self.until - time.time()

    def config(self, model: str, *overrides: str) -> Config:
        """The config of a row of MODELS, without pretrained weights."""
        fixed = ("model.backbone.weights=null", f"train.device={self.device}")
        return load_config(self.scale.config, overrides=[*self.scale.overrides, *fixed, *MODELS[model], *overrides])
