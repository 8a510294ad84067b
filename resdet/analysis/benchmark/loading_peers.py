"""Other libraries' ways from annotation files to training samples, as references for the time of ours."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from pycocotools import mask as pycocotools_mask
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from resdet.config import Config

coco_mask: Any = pycocotools_mask  # its type annotations do not accept polygons


class TorchvisionReference:
    """As torchvision's references/detection read COCO: Pillow, boxes or masks as tv_tensors, transforms v2."""

    def __init__(self, annotations: Path, config: Config) -> None:
        augment = config.data.augment
        transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(augment.flip),
                v2.RandomShortestSize(list(augment.short_side), max_size=augment.max_side),
                v2.PILToTensor(),
                v2.SanitizeBoundingBoxes(),
                v2.ToPureTensor(),
            ]
        )
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            dataset = CocoDetection("/", str(annotations), transforms=transform)
        keys = ["boxes", "labels", *(["masks"] if config.model.mask_head else [])]
        self.samples: Any = wrap_dataset_for_transforms_v2(dataset, target_keys=keys)

    def __call__(self) -> None:
        for index in range(len(self.samples)):
            _ = self.samples[index]


class Detectron2Like:
    """As Detectron2's DatasetMapper with bit masks: Pillow decodes and resizes, and pycocotools draws each instance in
    the resized image.
    """

    def __init__(self, annotations: Path, config: Config) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco: Any = COCO(str(annotations))
        augment = config.data.augment
        self.short_sides, self.max_side, self.flip = augment.short_side, augment.max_side, augment.flip
        self.masks = config.model.mask_head is not None
        self.random = np.random.default_rng(0)

    def __call__(self) -> None:
        for image in self.coco.dataset["images"]:
            _ = self.mapped(image)

    def mapped(self, record: dict[str, Any]) -> dict[str, Any]:
        """A sample: the image, and its instances as tensors."""
        with Image.open(record["file_name"]) as file:
            image = np.asarray(file.convert("RGB"))
        height, width = image.shape[:2]
        scale = min(self.random.choice(self.short_sides) / min(height, width), self.max_side / max(height, width))
        size = (int(height * scale + 0.5), int(width * scale + 0.5))
        image = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        flip = bool(self.random.random() < self.flip)
        if flip:
            image = image[:, ::-1]
        instances = [each for each in self.coco.imgToAnns[record["id"]] if not each["iscrowd"]]
        factors = np.array([size[1] / width, size[0] / height] * 2)
        boxes = np.array([each["bbox"] for each in instances]).reshape(-1, 4) * factors
        boxes[:, 2:] += boxes[:, :2]
        if flip:
            boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
        sample = {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.tensor([each["category_id"] for each in instances]),
        }
        if self.masks:
            masks = [self._mask(each, size, factors[:2], flip=flip) for each in instances]
            sample["masks"] = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *size, dtype=torch.uint8)
        return sample

    def _mask(
        self, instance: dict[str, Any], size: tuple[int, int], factors: np.ndarray, *, flip: bool
    ) -> UInt8[np.ndarray, "h w"]:
        shape = instance["segmentation"]
        if isinstance(shape, dict):
            pixels = np.asarray(coco_mask.decode(coco_mask.frPyObjects(shape, *shape["size"])))
            resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.NEAREST)
            mask = np.asarray(resized)
            return np.ascontiguousarray(mask[:, ::-1]) if flip else mask
        polygons = []
        for polygon in shape:
            points = np.array(polygon).reshape(-1, 2) * factors
            if flip:
                points[:, 0] = size[1] - points[:, 0]
            polygons.append(points.ravel().tolist())
        if not polygons:
            return np.zeros(size, np.uint8)
        return np.asarray(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *size))))
