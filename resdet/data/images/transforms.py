"""Training augmentation. The only file that knows albumentations."""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for a newer version, on import

from dataclasses import dataclass

import albumentations as A
import numpy as np
from jaxtyping import Float32, Int64, UInt8


@dataclass(frozen=True)
class Augmented:
    """A changed image, the xyxy boxes that are left, which of the given ones they are (`kept`), and where the image's
    first and last corner (x, y) have gone: a flip swaps their x."""

    image: UInt8[np.ndarray, "H W 3"]
    boxes: Float32[np.ndarray, "n 4"]
    kept: Int64[np.ndarray, " n"]
    corners: Float32[np.ndarray, "2 2"]


class Augmentation:
    """Random flip and photometric change of an image and its boxes; a pure function of its input and the seed.

    Boxes keep at least one pixel a side: smaller ones, after the resize, are left out.
    """

    def __init__(self, *, flip: float, photometric: float) -> None:
        """`flip`, `photometric`: probabilities."""
        # One running index is the only label: integers pass through float32, so ids would not survive.
        boxes = A.BboxParams(
            format="pascal_voc",
            label_fields=["index"],
            clip=True,
            filter_invalid_bboxes=True,
            min_area=1,
            min_width=1,
            min_height=1,
        )
        jitter = A.ColorJitter(
            brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.5, 1.5), hue=(-0.05, 0.05), p=photometric
        )
        corners = A.KeypointParams(format="xy", remove_invisible=False)
        self._compose = A.Compose([A.HorizontalFlip(p=flip), jitter], bbox_params=boxes, keypoint_params=corners)

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], boxes: Float32[np.ndarray, "n 4"], *, seed: int) -> Augmented:
        self._compose.set_random_seed(seed)
        height, width = image.shape[:2]
        corners = np.array([[0, 0], [width, height]], np.float32) - 0.5  # keypoints count from a pixel's centre
        changed = self._compose(image=image, bboxes=boxes, index=np.arange(len(boxes)), keypoints=corners)
        return Augmented(
            image=changed["image"],
            boxes=np.asarray(changed["bboxes"], np.float32).reshape(-1, 4),
            kept=np.asarray(changed["index"], np.int64),
            corners=np.asarray(changed["keypoints"], np.float32) + 0.5,
        )
