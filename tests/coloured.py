"""A data set whose pixels tell which object they belong to: every object has a colour of its own, on black."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as pycocotools_mask

coco_mask: Any = pycocotools_mask

SIZES = ((120, 160), (160, 120), (140, 140), (100, 150))
BOX_ONLY, CROWD = 2, 5  # of the six objects of an image: one without a mask, and one crowd region


def colour_of(annotation: int) -> tuple[int, int, int]:
    """24 hues in two saturations, far from each other and from black."""
    hue, saturation = annotation % 12 * 15, 255 if annotation // 12 % 2 else 140
    red, green, blue = cv2.cvtColor(np.array([[[hue, saturation, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def _outline(kind: int, x: float, y: float, width: float, height: float) -> list[float]:
    """Shapes without thin tips, whose pixels would vanish in a resize: a trapezium, an L, an octagon."""
    shapes = (
        [(0.3, 0), (0.7, 0), (1, 1), (0, 1)],
        [(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1)],
        [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)],
    )
    return [coordinate for u, v in shapes[kind % 3] for coordinate in (x + u * width, y + v * height)]


def write_coloured(root: Path) -> Path:
    """Four images of six objects each: polygons, run lengths, one box without a mask, one crowd region."""
    images, annotations = [], list[dict[str, Any]]()
    for number, (height, width) in enumerate(SIZES):
        picture = np.zeros((height, width, 3), np.uint8)
        images.append({"id": 10 + number, "file_name": f"{number}.png", "height": height, "width": width})
        for place in range(6):
            cell_width, cell_height = width / 3, height / 2
            x, y = (place % 3) * cell_width + 4 + number, (place // 3) * cell_height + 5
            w, h = cell_width - 12 - number * 2, cell_height - 14
            identity = len(annotations)
            outline = _outline(place + number, x, y, w, h)
            if place in (BOX_ONLY, CROWD):
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            runs = coco_mask.merge(coco_mask.frPyObjects([outline], height, width))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools
                mask = coco_mask.decode(runs).astype(bool)
            ys, xs = np.nonzero(mask)
            box = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
            picture[mask] = colour_of(identity)
            entry: dict[str, Any] = {
                "id": 1000 + identity,
                "image_id": 10 + number,
                "category_id": 1 + identity % 3,
                "iscrowd": 0,
            }
            entry |= {"bbox": [float(side) for side in box], "area": float(mask.sum())}
            as_runs = {"size": runs["size"], "counts": runs["counts"].decode()}
            entry["segmentation"] = [outline] if place % 2 == 0 else as_runs
            if place == BOX_ONLY:
                del entry["segmentation"]
            if place == CROWD:
                entry |= {"iscrowd": 1, "segmentation": as_runs}
            annotations.append(entry)
        assert cv2.imwrite(str(root / f"{number}.png"), picture[:, :, ::-1])
    categories = [{"id": each, "name": f"class {each}"} for each in (1, 2, 3)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    _ = (root / "a.json").write_text(json.dumps(content))
    return root
