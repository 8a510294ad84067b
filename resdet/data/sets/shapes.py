"""The generated data set "shapes": eight silhouettes on textured backgrounds, in COCO's format, with visible masks.

Every image is a pure function of (seed, split, index), so the same parameters give the same files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from pycocotools import mask as coco_mask

from resdet.data.sets.cache import cache_folder
from resdet.data.sets.textures import background, colour, fill
from resdet.errors import UserError
from resdet.files import working_folder

VERSION = 4  # of the generator: part of the cache folder's name
CLASSES = ("circle", "square", "triangle", "star", "ring", "cross", "arrow", "heart")
SPLITS = ("train", "val")

OVERSAMPLING = 4  # outlines are drawn at this scale, then reduced by averaging
MIN_VISIBLE = 0.45  # of an object's own area: objects that are hidden more are not drawn
MIN_RADIUS, MAX_RADIUS = 0.12, 0.26  # of the image's side
MAX_TURN = 0.4  # radians in both directions

Outline = list[Float64[np.ndarray, "_ 2"]]  # closed curves about the origin, radius 1; inner curves are holes


def shapes_folder(*, train_images: int, val_images: int, size: int, max_objects: int, seed: int) -> Path:
    """The data set's folder in the cache ($RESDET_CACHE, else ~/.cache/resdet), created at first use.

    It contains annotations/instances_{train,val}.json and the images in train/ and val/. `size` is the side of the
    square images in pixels. The folder appears complete or not at all, even if several processes create it at the same
    time.
    """
    cache = cache_folder()
    folder = cache / f"shapes-v{VERSION}-{size}px-{train_images}+{val_images}-max{max_objects}-seed{seed}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with working_folder(cache, "shapes") as work:
            for split, count in zip(SPLITS, (train_images, val_images), strict=True):
                _write_split(work, split, count, size=size, max_objects=max_objects, seed=seed)
            _publish(work, folder)
    except OSError as error:
        raise UserError(
            f"{cache}: cannot write the generated data set ({error.strerror}); set RESDET_CACHE to a folder with room"
        ) from None
    return folder


def _publish(work: Path, folder: Path) -> None:
    complete = work / "complete"
    complete.mkdir()
    for part in ("annotations", *SPLITS):
        shutil.move(work / part, complete / part)
    try:
        complete.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster and wrote the same bytes
            raise


def _write_split(root: Path, split: str, count: int, *, size: int, max_objects: int, seed: int) -> None:
    (root / split).mkdir()
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = draw_scene(
            np.random.default_rng([seed, SPLITS.index(split), index]), size=size, max_objects=max_objects
        )
        name = f"{index:06d}.jpg"
        written = cv2.imwrite(str(root / split / name), scene.image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        if not written:
            raise OSError(None, f"{name} could not be written")
        images.append({"id": index + 1, "file_name": name, "height": size, "width": size})
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1} | _annotation(label, mask))
    content = {
        "info": {"description": f"resdet shapes v{VERSION}, {split}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def _annotation(label: int, mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    counts: bytes = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]  # pyright: ignore[reportAssignmentType]
    return {
        "category_id": label + 1,
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": counts.decode()},
    }


@dataclass(frozen=True)
class Scene:
    """An image, and the label and visible pixels of each object in it."""

    image: UInt8[np.ndarray, "h w 3"]
    labels: list[int]
    masks: list[Bool[np.ndarray, "h w"]]


def draw_scene(rng: np.random.Generator, *, size: int, max_objects: int) -> Scene:
    """One image with 1 to `max_objects` objects; later ones lie on top."""
    image = background(rng, size)
    labels: list[int] = []
    masks: list[Bool[np.ndarray, "h w"]] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(1, max_objects + 1))):
        label = int(rng.integers(len(CLASSES)))
        outline = _pose(OUTLINES[CLASSES[label]](), rng, size)
        coverage = _coverage(outline, size)
        solid = coverage > 0.5
        area = int(solid.sum())
        left = [int((mask & ~solid).sum()) for mask in masks]
        crowded = any(rest < MIN_VISIBLE * whole for rest, whole in zip(left, areas, strict=True))
        if crowded or area < _area(outline) * 0.7:  # it would hide another object, or extends too far beyond the border
            continue
        image = _paint(image, coverage, outline, rng)
        masks = [*(mask & ~solid for mask in masks), solid]
        areas.append(area)
        labels.append(label)
    noise = rng.normal(0, rng.uniform(1, 5), image.shape).astype(np.float32)
    lit = image * np.float32(rng.uniform(0.8, 1.15)) + noise
    return Scene(np.clip(np.rint(lit), 0, 255).astype(np.uint8), labels, masks)


def _paint(
    image: Float32[np.ndarray, "h w 3"],
    coverage: Float32[np.ndarray, "h w"],
    outline: Outline,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"]:
    size = len(image)
    offset = size / 50
    shifted = cv2.warpAffine(coverage, np.array([[1, 0, offset], [0, 1, offset]], np.float32), (size, size))
    shadow = cv2.GaussianBlur(shifted, (0, 0), size / 80)[..., None] * np.float32(rng.uniform(0.2, 0.6))
    tint = colour(rng, saturation=(0.45, 1.0), value=(0.35, 1.0))
    body = fill(rng, size, tint)
    edge = _coverage(outline, size, line=max(1, round(size / 80 * OVERSAMPLING)))[..., None]
    body = body * (1 - 0.65 * edge)
    alpha = coverage[..., None]
    return image * (1 - shadow) * (1 - alpha) + body * alpha


def _coverage(outline: Outline, size: int, line: int = 0) -> Float32[np.ndarray, "h w"]:
    """The fraction of each pixel that the outline covers: its inside, or a stroke along it."""
    bits = 4  # fractional bits of the vertices
    canvas = np.zeros((size * OVERSAMPLING, size * OVERSAMPLING), np.uint8)
    curves = [np.rint((curve * OVERSAMPLING - 0.5) * 2**bits).astype(np.int32) for curve in outline]
    if line:
        cv2.polylines(canvas, curves, isClosed=True, color=255, thickness=line, shift=bits)
    else:
        cv2.fillPoly(canvas, curves, 255, shift=bits)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _pose(outline: Outline, rng: np.random.Generator, size: int) -> Outline:
    radius = size * np.exp(rng.uniform(np.log(MIN_RADIUS), np.log(MAX_RADIUS)))
    stretch = np.exp(rng.uniform(-0.12, 0.12))
    angle = rng.uniform(-MAX_TURN, MAX_TURN)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = rng.uniform(0.6 * radius, size - 0.6 * radius, 2)
    return [curve * [radius * stretch, radius / stretch] @ turn + centre for curve in outline]


def _area(outline: Outline) -> float:
    """The shoelace formula; holes reduce the area."""
    areas = [abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2 for x, y in (curve.T for curve in outline)]
    return 2 * areas[0] - sum(areas)


def _polar(radii: list[float], start: float = -np.pi / 2) -> Float64[np.ndarray, "_ 2"]:
    angles = start + np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.stack((np.cos(angles), np.sin(angles)), axis=1) * np.array(radii)[:, None]


def _cross() -> Outline:
    arm, end = 0.32, 0.95
    corner = [[arm, arm], [arm, end], [-arm, end]]
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return [np.concatenate([np.array(corner) @ np.linalg.matrix_power(quarter, turns) for turns in range(4)])]


def _heart() -> Outline:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack((x, -y - 2.5), axis=1) / 15.5]


OUTLINES: dict[str, Callable[[], Outline]] = {
    "circle": lambda: [_polar([0.9] * 64)],
    "square": lambda: [_polar([1.15] * 4)],
    "triangle": lambda: [_polar([1.15] * 3)],
    "star": lambda: [_polar([1.15, 0.45] * 5)],
    "ring": lambda: [_polar([0.95] * 64), _polar([0.5] * 64)],
    "cross": _cross,
    "arrow": lambda: [np.array([[0, -1], [0.8, -0.1], [0.3, -0.1], [0.3, 1], [-0.3, 1], [-0.3, -0.1], [-0.8, -0.1]])],
    "heart": _heart,
}
