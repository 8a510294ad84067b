"""Annotation files of five formats, damaged slightly, and used as training and scoring use what they accept."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from attack import damaged

sys.path.insert(0, str(Path(__file__).parents[1]))

from layout_folders import csv_tables, voc_lists, yolo_darknet, yolo_ultralytics
from resdet.coco.ground_truth import GroundTruth
from resdet.coco.results import CocoResults
from resdet.config import DataConfig
from resdet.data.augment.samples import KeyedSamples
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.data.sets.opened import open_folder
from resdet.evaluation.coco import evaluate_coco
from resdet.evaluation.lvis import evaluate_lvis
from resdet.evaluation.voc import evaluate_voc

STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 1e-6, 0.5, -0.0, 1e8, 1e38, 1e39, 1e308, "", "7",
    "\x1b[31m", "a" * 5000, "\u202eevil", "../x", "\0", "\ud800", [], [[]], [[[]]], [1], [1, 2, 3, 4], [[1, 2]],
    [[1, 2, 3]], [[1, 1, 2, 2, float("nan"), 3]], [float("inf")], {}, {"size": [40, 60], "counts": "abc"},
    {"size": [40, 60], "counts": [2400]}, {"size": [60, 40], "counts": [2400]}, {"counts": "PPYo1"},
    {"size": [40, 60], "counts": [-1, 2401]}, {"size": None, "counts": None},
    {"size": [40, 60], "counts": [2**63 - 1, 1, 2**63 - 1, 1, 2400]}, {"size": [2**62, 2**62], "counts": [2**62] * 4},
]  # fmt: skip
WORDS = (
    *("", "0", "-1", "1", "0.5", "1.0001", "1e-9", "1e308", "nan", "inf", "-0", "1_0", "0x1", "7,5", "bee", "Wasp"),
    *("\u0664", "\x1b[31m", "../x", "a" * 300, "<b>", "&lt;", "'", '"', ";", "99999999999999999999", " ", "\t"),
)
IMAGES = (".jpg", ".png")
NUMBER = re.compile(r"-?\d+\.?\d*")
Attempt = Callable[[int], None]


def with_strange_values(content: Any, rng: random.Random) -> Any:
    """Some values of a tree of JSON replaced, removed or doubled."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 3))):
        node, key = content, rng.choice(list(content))
        while isinstance(node[key], dict | list) and node[key] and rng.random() < 0.9:
            node = node[key]
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        if rng.random() < 0.8 or not isinstance(node, list):
            node[key] = copy.deepcopy(rng.choice(STRANGE))
        elif rng.random() < 0.5:
            node.append(copy.deepcopy(node[key]))
        else:
            del node[key]
        if not content:
            break
    return content


def with_other_numbers(content: Any, rng: random.Random) -> Any:
    """Some objects with other numbers, flags and masks of the right types, near and beyond what can be meant."""
    content = copy.deepcopy(content)
    for record in rng.sample(content["annotations"], rng.choice((1, 2, 3))):
        kind = rng.randrange(6)
        if kind == 0:
            record["bbox"][rng.randrange(4)] += rng.choice((-6, -0.5, 0.25, 1e-7, 3, 30, 60))
        elif kind == 1:
            record["iscrowd"], record["area"] = rng.choice((0, 1)), rng.choice((0, 0.5, 200, 1e6))
        elif kind == 2:
            points = [rng.choice((-5, 0, 5, 12.5, 25, 39.5, 60, 75)) for _ in range(2 * rng.choice((3, 3, 4, 9)))]
            record["segmentation"] = [points, [5, 5, 25, 5, 25, 15]][: rng.choice((1, 2))]
        elif kind == 3:
            runs = sorted(rng.sample(range(2401), 2 * rng.randrange(4)))
            counts = np.diff([0, *runs, 2400]).tolist()
            record["segmentation"] = {"size": [40, 60], "counts": counts}
        elif kind == 4:
            record[rng.choice(("difficult", "ignore"))] = rng.choice((0, 1))
        else:
            _ = record.pop(rng.choice(("segmentation", "area", "iscrowd")), None)
    if rng.random() < 0.3:
        rng.shuffle(content[rng.choice(("images", "annotations", "categories"))])
    return content


def coco_file() -> dict[str, Any]:
    masks = ([[5, 5, 25, 5, 25, 15]], {"size": [40, 60], "counts": [300, 10, 2090]}, [])
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in range(3)],
        "annotations": [
            {"id": i, "image_id": i % 3, "category_id": 1 + i % 2, "bbox": [5, 5, 20, 10], "area": 200, "iscrowd": 0,
             "segmentation": masks[i % 3]} for i in range(6)
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }  # fmt: skip


def lvis_file() -> dict[str, Any]:
    content = coco_file()
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
        image |= {"neg_category_ids": [2], "not_exhaustive_category_ids": [1]}
    for record in content["annotations"]:
        record["segmentation"] = [[5, 5, 25, 5, 25, 15]]
        del record["iscrowd"]
    for category, frequency in zip(content["categories"], "rf", strict=True):
        category |= {"frequency": frequency, "synset": f"{category['name']}.n.01", "image_count": 3}
    return content


def used(dataset: CocoDataset) -> None:
    """What training and scoring do with a data set: samples with masks, and the figures of perfect detections."""
    truth = dataset.ground_truth()
    assert len(truth.label) == len(dataset.labels), "training and scoring see the same objects"
    samples = KeyedSamples(dataset, DataConfig(), [32])
    for index in range(len(dataset)):
        sample = samples.sample(index, 0, 14)
        assert np.isfinite(sample.boxes).all()
        assert sample.masks is None or len(sample.masks) == len(sample.boxes)
    found, segmented = perfect(truth), bool(truth.masks.present().any())
    for kind in ("bbox", "segm") if segmented else ("bbox",):
        figures = evaluate_coco(truth, found, iou_type=kind)
        assert all(value is None or 0 <= value <= 1 for value in figures.values()), figures
    _ = evaluate_voc(truth, found, rule="voc12")
    if truth.federated is not None:
        _ = evaluate_lvis(truth, found)


def perfect(truth: GroundTruth) -> CocoResults:
    results = CocoResults()
    whole = [{"size": size.tolist(), "counts": [0, int(size.prod())]} for size in truth.sizes[truth.image]]
    results.add_columns(
        truth.image_ids[truth.image],
        truth.category_ids[truth.label],
        np.linspace(0.1, 1, len(truth.label)),
        truth.boxes,
        whole,
    )
    return results


def json_files(content: dict[str, Any], folder: Path) -> Attempt:
    """A COCO or LVIS file, changed in its numbers, its tree or its bytes."""
    pixels, plain = np.zeros((40, 60, 3), np.uint8), json.dumps(content).encode()
    for i in range(3):
        for place in (folder, folder / "train2017"):
            place.mkdir(parents=True, exist_ok=True)
            _ = cv2.imwrite(str(place / f"{i}.jpg"), pixels)

    def attempt(case: int) -> None:
        rng = random.Random(case)
        kind = rng.choice((0, 0, 0, 1, 1, 2))
        if kind == 2:
            data = damaged(plain, rng)
        else:
            data = json.dumps((with_other_numbers, with_strange_values)[kind](content, rng)).encode()
        _ = (folder / "a.json").write_bytes(data)
        used(read_set(folder / "a.json", folder))

    return attempt


def folders(writer: Callable[[Path], None], folder: Path) -> Attempt:
    """A folder of another format: a word or a number in one of its texts is another, or some of its bytes."""
    writer(folder)
    texts = {
        path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in IMAGES
    }

    def attempt(case: int) -> None:
        rng = random.Random(case)
        path = rng.choice(list(texts))
        if rng.random() < 0.15:
            data = damaged(texts[path], rng)
        else:
            data = with_other_words(texts[path].decode(), rng).encode(errors="replace")
        try:
            _ = path.write_bytes(data)
            used(open_folder(folder, rng.choice(("train", "val")), whole=True))
        finally:
            _ = path.write_bytes(texts[path])

    return attempt


def with_other_words(text: str, rng: random.Random) -> str:
    """Some numbers a little larger or smaller, or words in place of words, or lines doubled, moved or left out."""
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.randrange(5)
        numbers, words = list(NUMBER.finditer(text)), list(re.finditer(r"[^\s,<>/]+", text))
        if kind < 3 and numbers:
            at = rng.choice(numbers)
            changed = float(at.group()) * rng.choice((0, 0.5, 0.9, 1.1, 2)) + rng.choice((-1, 0, 0, 0.01, 1))
            text = f"{text[: at.start()]}{changed:g}{text[at.end() :]}"
        elif kind == 3 and words:
            at = rng.choice(words)
            text = f"{text[: at.start()]}{rng.choice(WORDS)}{text[at.end() :]}"
        else:
            lines = text.splitlines(keepends=True)
            if lines:
                line = lines.pop(rng.randrange(len(lines)))
                for _ in range(rng.choice((0, 1, 2))):
                    lines.insert(rng.randrange(len(lines) + 1), line)
            text = "".join(lines)
    return text


def annotation_files(folder: Path, canary: Path) -> Attempt:
    """COCO, LVIS, VOC, two kinds of YOLO, and CSV in turn."""
    os.environ["RESDET_CACHE"] = str(folder / "cache")
    attempts = [
        json_files(coco_file(), folder / "coco"),
        json_files(lvis_file(), folder / "lvis"),
        *(
            folders(writer, folder / writer.__name__)
            for writer in (voc_lists, yolo_ultralytics, yolo_darknet, csv_tables)
        ),
    ]

    def attempt(case: int) -> None:
        attempts[case % len(attempts)](case)

    return attempt
