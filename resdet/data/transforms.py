"""Training augmentation. The only file that knows albumentations."""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for a newer version, on import

import albumentations as A
import numpy as np
from jaxtyping import Float32, Int64, UInt8


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
        self._compose = A.Compose([A.HorizontalFlip(p=flip), jitter], bbox_params=boxes)

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], boxes: Float32[np.ndarray, "n 4"], *, seed: int
    ) -> tuple[UInt8[np.ndarray, "H W 3"], Float32[np.ndarray, "m 4"], Int64[np.ndarray, " m"]]:
        """The changed image, the xyxy boxes that are left, and which of the given ones they are."""
        self._compose.set_random_seed(seed)
        changed = self._compose(image=image, bboxes=boxes, index=np.arange(len(boxes)))
        kept = np.asarray(changed["index"], np.int64)
        return changed["image"], np.asarray(changed["bboxes"], np.float32).reshape(-1, 4), kept
