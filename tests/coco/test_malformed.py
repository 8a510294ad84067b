"""Whatever stands in an annotation file, reading it gives a data set or one clear line, soon."""

from __future__ import annotations

import copy
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdet.data.sets.formats import read_set
from resdet.errors import UserError

FILES = 400
LIMIT = 5.0  # seconds a file
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 5, 2**31, 2**63, 2**64, -(2**63), 1e-6, 0.5, -0.0, 1e8, 1e38, 1e39, 1e308, "", "7",
    "\x1b[31m", "a" * 5000, "\u202eevil", "../x", [], [[]], [[[]]], [1], [1, 2, 3, 4], [[1, 2]], [[1, 2, 3]],
    [[1, 1, 2, 2, float("nan"), 3]], [float("inf")], {}, {"size": [40, 60], "counts": "abc"},
    {"size": [40, 60], "counts": [2400]}, {"size": [60, 40], "counts": [2400]},
    {"size": [40, 60], "counts": [-1, 2401]}, {"size": None, "counts": None}, {"counts": "PPYo1"},
    {"size": [2**62, 2**62], "counts": [2**62] * 4},
]  # fmt: skip


def valid() -> dict[str, Any]:
    return {
        "images": [{"id": number, "file_name": f"{number}.jpg", "height": 40, "width": 60} for number in range(3)],
        "annotations": [
            {
                "id": number,
                "image_id": number % 3,
                "category_id": 1 + number % 2,
                "bbox": [5, 5, 20, 10],
                "area": 200,
                "iscrowd": 0,
                "segmentation": [[5, 5, 25, 5, 25, 15]],
            }
            for number in range(6)
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def mutated(content: Any, rng: random.Random) -> Any:
    """One value somewhere in the tree replaced, removed or doubled."""
    node, key = content, rng.choice(list(content))
    while isinstance(node[key], dict | list) and node[key] and rng.random() < 0.9:
        node = node[key]
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    kind = rng.random()
    if kind < 0.7:
        node[key] = copy.deepcopy(rng.choice(STRANGE))
    elif kind < 0.85:
        del node[key]
    elif isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    return content


def damaged(text: bytes, rng: random.Random) -> bytes:
    data = bytearray(text)
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] = rng.choice(b'{}[]",:0-9eE\\\xff\x00 ')
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)


@pytest.mark.parametrize("seed", range(4))
def test_malformed_annotation_files(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "a.json"
    for number in range(3):
        (tmp_path / f"{number}.jpg").touch()
    read = 0
    for _ in range(FILES // 4):
        content = valid()
        for _ in range(rng.randrange(1, 4)):
            content = mutated(content, rng) if content else content
        text = json.dumps(content).encode()
        _ = path.write_bytes(damaged(text, rng) if rng.random() < 0.3 else text)
        start = time.process_time()
        try:
            dataset = read_set(path, tmp_path)
        except UserError as error:
            message = str(error)
        else:
            message = dataset.report.summary()
            read += 1
            report = dataset.report
            skipped = sum(note.count for note in report.skipped.values())
            assert report.annotations_read == report.annotations_kept + skipped
            assert np.isfinite(dataset.boxes).all()
            assert (dataset.boxes[:, 2:] > dataset.boxes[:, :2]).all()
            assert dataset.labels.max(initial=0) < len(dataset.class_names)
        assert time.process_time() - start < LIMIT
        assert message.isprintable(), message
        assert str(path) in message or str(tmp_path) in message
    assert read > 0  # the mutations are mild enough to reach every check
