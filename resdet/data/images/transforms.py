"""The flip, the change of colours and the pixel changes that the keys of `data.augment` name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from resdet.data.images.library import A
from resdet.errors import UserError, row_of

Image = UInt8[np.ndarray, "H W 3"]
PixelChange = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # of an image: the same size, pixels in place


@dataclass(frozen=True)
class Augmented:
    """An augmented image, the xyxy boxes in it (all of the given boxes, in their order), and the new positions (x, y)
    of the image's first and last corner: a flip exchanges their x.
    """

    image: UInt8[np.ndarray, "H W 3"]
    boxes: Float32[np.ndarray, "n 4"]
    corners: Float32[np.ndarray, "2 2"]


def grey(image: Image, generator: np.random.Generator) -> Image:
    """The brightness (ITU-R BT.601) in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def blur(image: Image, generator: np.random.Generator) -> Image:
    """A Gaussian blur with a standard deviation drawn from 0.5 to 1.5 pixels."""
    return cv2.GaussianBlur(image, (0, 0), generator.uniform(0.5, 1.5))


# Of the colours of ImageNet's training images in 0..1: deviations along the principal axes, and the axes (columns), for
# red, green and blue; as computed for fb.resnet.torch (Gross & Wilber 2016).
PCA_DEVIATIONS = np.array([0.2175, 0.0188, 0.0045])
PCA_AXES = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
PCA_STRENGTH = 0.1


def pca_colour(image: Image, generator: np.random.Generator) -> Image:
    """One colour is added to all pixels: along each principal axis of ImageNet's colours a multiple of its deviation,
    drawn from N(0, 0.1) (Krizhevsky et al. 2012, section 4.1).
    """
    drawn = generator.normal(0, PCA_STRENGTH, 3)
    added = np.rint(255 * PCA_AXES @ (drawn * PCA_DEVIATIONS)).astype(np.int16)
    return np.clip(image.astype(np.int16) + added, 0, 255).astype(np.uint8)


PIXEL_CHANGES: dict[str, PixelChange] = {
    "grey": grey,
    "blur": blur,
    "pca_colour": pca_colour,
}


class Augmentation:
    """Random flip and photometric change of an image and its boxes, then the pixel changes that are named, in turn.

    A pure function of its input and the seed. The functions are looked up here, once: a worker process needs no table.

    Albumentations transforms the image and its corners as keypoints; the boxes are computed from the corners. Its own
    transformation of boxes would round them and remove those that it considers too small.
    """

    def __init__(
        self, *, flip: float, photometric: float, extra: Sequence[str] = (), extra_probability: float = 0.5
    ) -> None:
        """`flip`, `photometric`, and that of each row of PIXEL_CHANGES in `extra`: probabilities.

        Raises UserError for a name without a row.
        """
        self._extra = [(name, row_of(PIXEL_CHANGES, name, "data.augment.extra")) for name in extra]
        self._extra_probability = extra_probability
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
        pixels = self._changed(changed["image"], seed) if self._extra else changed["image"]
        return Augmented(image=pixels, boxes=_moved(boxes, corners, width, height), corners=corners)

    def _changed(self, image: Image, seed: int) -> Image:
        """Each change draws from a generator of its own, so that what one draws changes no other."""
        for place, (name, change) in enumerate(self._extra):
            generator = np.random.default_rng((seed, place))
            if generator.random() < self._extra_probability:
                changed = change(image, generator)
                if changed.shape != image.shape or changed.dtype != np.uint8:
                    raise UserError(
                        f"data.augment.extra: {name} made of an image of shape {image.shape}, uint8, one of shape"
                        f" {changed.shape}, {changed.dtype}; a pixel change leaves both as they are"
                    )
                image = changed
        return image


def _moved(
    boxes: Float32[np.ndarray, "n 4"], corners: Float32[np.ndarray, "2 2"], width: int, height: int
) -> Float32[np.ndarray, "n 4"]:
    """The boxes after the transformation of the image's corners; each side is rounded once."""
    scale = (corners[1] - corners[0]) / np.array([width, height], np.float64)  # -1 along a mirrored axis
    moved = corners[0] + boxes.reshape(-1, 2, 2) * scale
    return np.concatenate((moved.min(axis=1), moved.max(axis=1)), axis=1).astype(np.float32)
