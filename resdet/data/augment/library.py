"""Any transform of albumentations that can serve detection, by its name and arguments.

The library moves pixels and the corners of the image; boxes and masks follow from the corners here. Its own handling
of boxes rounds them, drops small ones, and makes integer labels inexact; its masks are slow and stay behind when their
boxes are dropped.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from resdet.data.augment.draw import Draw
from resdet.data.augment.projective import projected
from resdet.data.augment.scene import OUTSIDE, Image, Scene
from resdet.data.augment.shapes import Masks, bitmap, reshaped, window_of
from resdet.data.images.library import A
from resdet.data.images.masks import EMPTY, MaskWindow
from resdet.errors import UserError, did_you_mean


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Transforms that change pixels and leave every object where it is.
PIXELS = _words("""
    AdditiveNoise AdvancedBlur AutoContrast Blur CLAHE ChannelDropout ChannelShuffle ChromaticAberration CoarseDropout
    ColorJitter Defocus Downscale Emboss Equalize Erasing FancyPCA GaussNoise GaussianBlur GlassBlur GridDropout HEStain
    HueSaturationValue ISONoise Illumination ImageCompression InvertImg MedianBlur Morphological MotionBlur
    MultiplicativeNoise NoOp PixelDropout PlanckianJitter PlasmaBrightnessContrast PlasmaShadow Posterize RGBShift
    RandomBrightnessContrast RandomFog RandomGamma RandomGravel RandomRain RandomShadow RandomSnow RandomSunFlare
    RandomToneCurve RingingOvershoot SaltAndPepper Sharpen ShotNoise Solarize Spatter Superpixels ToGray ToSepia
    UnsharpMask XYMasking ZoomBlur
    """)
# Those that keep lines straight: the corners of the image tell where everything goes.
LINES = _words("""
    Affine AtLeastOneBBoxRandomCrop BBoxSafeRandomCrop CenterCrop Crop CropAndPad D4 HorizontalFlip LongestMaxSize Pad
    PadIfNeeded Perspective RandomCrop RandomCropFromBorders RandomResizedCrop RandomRotate90 RandomScale
    RandomSizedBBoxSafeCrop RandomSizedCrop Resize Rotate SafeRotate ShiftScaleRotate SmallestMaxSize SquareSymmetry
    Transpose VerticalFlip
    """)
# Those that bend them: every object moves as a mask, with its box as the mask where it has none.
BENDS = _words("""
    ElasticTransform GridDistortion GridElasticDeform OpticalDistortion PiecewiseAffine RandomGridShuffle
    ThinPlateSpline
    """)
REFUSED = {
    **dict.fromkeys(("FDA", "HistogramMatching", "PixelDistributionAdaptation", "OverlayElements", "TextImage",
                     "RandomCropNearBBox"), "needs more than an image and its objects"),
    **dict.fromkeys(("FromFloat", "Normalize", "ToFloat", "ToRGB", "ToTensorV2"), "changes the type of the image"),
    **dict.fromkeys(("CenterCrop3D", "CoarseDropout3D", "CubicSymmetry", "Pad3D", "PadIfNeeded3D", "RandomCrop3D",
                     "ToTensor3D"), "is for volumes"),
    **dict.fromkeys(("FrequencyMasking", "TimeMasking", "TimeReverse"), "is for spectrograms"),
    **dict.fromkeys(("ConstrainedCoarseDropout", "MaskDropout", "CropNonEmptyMaskIfExists"),
                    "reads masks as one image; use CoarseDropout or min_iou_crop"),
    "Lambda": "takes functions; add a row to PIXEL_CHANGES (docs/extending.md)",
    "Mosaic": "takes its images as an argument; use mosaic",
}  # fmt: skip
NAMES = PIXELS | LINES | BENDS
READ_BOXES = frozenset(("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "RandomSizedBBoxSafeCrop"))
# The library measures points from the centre of a pixel, except where it resizes.
FROM_THE_CORNER = _words("""
    CropAndPad LongestMaxSize RandomResizedCrop RandomScale RandomSizedBBoxSafeCrop RandomSizedCrop Resize
    SmallestMaxSize
    """)
# Those of LINES whose result has the size of their input, unless an argument says otherwise.
KEEP_THE_SIZE = _words("""
    Affine HorizontalFlip Perspective Rotate SafeRotate ShiftScaleRotate VerticalFlip
    """)
REFLECTING = (cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101, cv2.BORDER_WRAP)
FAULTS = (ValueError, TypeError, ArithmeticError, cv2.error, IndexError)


class LibraryTransform:
    """One transform of albumentations."""

    def __init__(self, name: str, arguments: Mapping[str, Any], masks: Masks, where: str) -> None:
        """`where` begins the messages. Raises UserError, one line, for an unknown name or argument or a value that the
        library refuses.
        """
        self.name, self.where, self._masks = name, where, masks
        self.reads_boxes = name in READ_BOXES
        transform = _made(name, arguments, where)
        self.p, transform.p = float(transform.p), 1.0  # whether it happens is drawn as for every transform
        self.keeps_size = name not in LINES or (name in KEEP_THE_SIZE and _has_the_size(transform))
        self._compose = A.Compose(
            [transform],
            keypoint_params=A.KeypointParams(format="xy", remove_invisible=False) if name in LINES else None,
            bbox_params=A.BboxParams(format="albumentations", label_fields=["rows"]) if self.reads_boxes else None,
        )

    def __call__(self, scene: Scene, draw: Draw) -> Scene:
        seed = int(draw.generator.integers(2**32))
        if self.name in LINES:
            return self._along_lines(scene, seed)
        if self.name in PIXELS:
            if scene.image is None:
                return scene
            return replace(scene, image=self._checked(self._changed(scene, seed)["image"], scene))
        return self._bent(scene, seed)

    def _along_lines(self, scene: Scene, seed: int) -> Scene:
        (height, width), objects = scene.size, scene.objects
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        offset = 0.0 if self.name in FROM_THE_CORNER else 0.5
        more: dict[str, Any] = {"keypoints": corners - offset}
        if self.reads_boxes:
            boxes = np.clip(objects.boxes[~objects.ignored] / np.array([width, height] * 2, np.float32), 0, 1)
            more |= {"bboxes": boxes, "rows": np.arange(len(boxes))}
        changed = self._changed(scene, seed, **more)
        after = np.asarray(changed["keypoints"], np.float32) + offset
        matrix = cv2.getPerspectiveTransform(corners, after.astype(np.float32))
        pixels = changed["image"]
        size = (int(pixels.shape[0]), int(pixels.shape[1]))
        image = None if scene.image is None else pixels
        return projected(scene, matrix, size, image, self._masks)

    def _bent(self, scene: Scene, seed: int) -> Scene:
        objects, masks = scene.objects, self._masks
        present = masks.present(objects)
        before = [
            bitmap(masks.window(objects, index) if present[index] else _filled(box), scene.size)
            for index, box in enumerate(objects.boxes)
        ]
        changed = self._changed(scene, seed, masks=before) if before else self._changed(scene, seed)
        windows = [window_of(np.asarray(mask)) for mask in changed["masks"]] if before else []
        boxes = np.array([_box(window) for window in windows], np.float32).reshape(-1, 4)
        whole = np.tile(np.array([0, 0, scene.size[1], scene.size[0]], np.float32), (len(objects), 1))
        loose = objects.loose & ~present
        grown = replace(objects, boxes=boxes, full=boxes + (objects.full - objects.boxes), clip=whole, loose=loose)
        shapes = {index: windows[index] for index in np.flatnonzero(present).tolist()}
        result = replace(scene, objects=reshaped(grown, shapes, scene.size))
        if scene.image is not None:
            result = replace(result, image=self._checked(changed["image"], scene))
        return result.keep(np.array([bool(window.pixels.size) for window in windows], bool), OUTSIDE)

    def _changed(self, scene: Scene, seed: int, **more: Any) -> dict[str, Any]:
        image = np.zeros((*scene.size, 3), np.uint8) if scene.image is None else scene.image
        self._compose.set_random_seed(seed)
        try:
            return self._compose(image=image, **more)
        except Exception as error:
            if not isinstance(error, FAULTS) and type(error).__module__.partition(".")[0] != "albumentations":
                raise
            height, width = scene.size
            raise UserError(f"{self.where}: {self.name} cannot change an image {height} high and {width} wide: "
                            f"{_one_line(error)}") from None  # fmt: skip

    def _checked(self, image: Any, scene: Scene) -> Image:
        if image.shape != (*scene.size, 3) or image.dtype != np.uint8:
            raise UserError(
                f"{self.where}: {self.name} made of an image of shape {(*scene.size, 3)}, uint8, one of shape "
                f"{image.shape}, {image.dtype}; give it other arguments"
            )
        return np.ascontiguousarray(image)


def _made(name: str, arguments: Mapping[str, Any], where: str) -> Any:
    if name in REFUSED:
        raise UserError(f"{where}: {name} of albumentations {REFUSED[name]}; leave it out")
    kind = getattr(A, name)
    known = [each for each in inspect.signature(kind.__init__).parameters if each != "self"]
    for argument in arguments:
        if argument not in known:
            raise UserError(f"{where}: {name} has no argument {argument!r}{did_you_mean(str(argument), known)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a transform is slow or has a newer name
            transform = kind(**arguments)
    except FAULTS as error:
        raise UserError(f"{where}: {name} refuses its arguments {dict(arguments)}: {_one_line(error)}") from None
    if getattr(transform, "border_mode", None) in REFLECTING:
        raise UserError(
            f"{where}: {name}.border_mode={transform.border_mode} shows objects again beyond the border, without boxes;"
            " give border_mode 0 (one colour) or 1 (the last pixels)"
        )
    return transform


def _has_the_size(transform: Any) -> bool:
    crops, grows = getattr(transform, "crop_border", False), getattr(transform, "fit_output", False)
    return not crops and not grows and getattr(transform, "keep_size", True)


def _one_line(error: BaseException) -> str:
    """The reason in an error of the library. Its argument check lists faults on several lines: a count, then for each
    the argument, the reason in more detail than a user needs, and an address.
    """
    lines = [re.sub(r"\[type=.*", "", line) for line in str(error).splitlines()]
    if "validation error" in lines[0]:
        lines = [
            line if line.startswith(" ") else f"{line}:" for line in lines[1:] if "further information" not in line
        ]
    return " ".join(" ".join(lines).split())[:300] or type(error).__name__


def _filled(box: Float32[np.ndarray, "4"]) -> MaskWindow:
    low, high = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    across, down = (high - low).tolist()
    return MaskWindow(np.ones((down, across), np.uint8), int(low[0]), int(low[1])) if across and down else EMPTY


def _box(window: MaskWindow) -> tuple[int, int, int, int]:
    height, width = window.pixels.shape
    return window.x, window.y, window.x + width, window.y + height
