"""Training augmentation. Only this file uses albumentations."""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise it asks the network for a newer version when it is imported

from dataclasses import dataclass

import albumentations as A
import numpy as np
from jaxtyping import Float32, UInt8


@dataclass(frozen=True)
class Augmented:
    """An augmented image, the xyxy boxes in it (all of the given boxes, in their order), and the new positions (x, y)
    of the image's first and last corner: a flip exchanges their x.
    """

    image: UInt8[np.ndarray, "H W 3"]
    boxes: Float32[np.ndarray, "n 4"]
    corners: Float32[np.ndarray, "2 2"]


class Augmentation:
    """Random flip and photometric change of an image and its boxes; a pure function of its input and the seed.

    Albumentations transforms the image and its corners as keypoints; the boxes are computed from the corners. Its own
    transformation of boxes would round them and remove those that it considers too small.
    """

    def __init__(self, *, flip: float, photometric: float) -> None:
        """`flip`, `photometric`: probabilities."""
        jitter = A.ColorJitter(
            brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.5, 1.5), hue=(-0.05, 0.05), p=photometric
        )
        corners = A.KeypointParams(format="xy", remove_invisible=False)
        self._compose = A.Compose([A.HorizontalFlip(p=flip), jitter], keypoint_params=corners)

    def __call__(self, image: UInt8[np.ndarray, "H W 3"], boxes: Float32[np.ndarray, "n 4"], *, seed: int) -> Augmented:
        self._compose.set_random_seed(seed)
        height, width = image.shape[:2]
        before = np.array([[0, 0], [width, height]], np.float32)
        # keypoints are measured from the centre of a pixel
        changed = self._compose(image=image, keypoints=before - 0.5)
        corners = np.asarray(changed["keypoints"], np.float32) + 0.5
        return Augmented(image=changed["image"], boxes=_moved(boxes, corners, width, height), corners=corners)


def _moved(
    boxes: Float32[np.ndarray, "n 4"], corners: Float32[np.ndarray, "2 2"], width: int, height: int
) -> Float32[np.ndarray, "n 4"]:
    """The boxes after the transformation of the image's corners; each side is rounded once."""
    scale = (corners[1] - corners[0]) / np.array([width, height], np.float64)  # -1 along a mirrored axis
    moved = corners[0] + boxes.reshape(-1, 2, 2) * scale
    return np.concatenate((moved.min(axis=1), moved.max(axis=1)), axis=1).astype(np.float32)
