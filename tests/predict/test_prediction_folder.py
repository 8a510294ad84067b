"""predictions.json: COCO results that pycocotools takes and that our own scoring pairs by file name."""

from __future__ import annotations

import contextlib
import io
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from resdet.coco.results import read_results
from resdet.evaluation.coco import evaluate_coco, read_ground_truth
from resdet.predict.prediction import Prediction
from resdet.predict.prediction_folder import PredictionFolder
from resdet.predict.sources import Source

NAMES = ["-x.jpg", "1.jpg", "10.jpg", "2.jpg", "a\nb.jpg", "ü %d #'\".jpg", "🐈.jpg"]  # as a folder is listed


def box_of(index: int) -> list[float]:
    return [float(index), 2.0 * index, 10.0 + index, 12.0 + 3 * index]  # xyxy


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    """The folder of perfect predictions of all files."""
    paths = [tmp_path / "img" / name for name in NAMES]
    folder = PredictionFolder(tmp_path / "out", paths, class_names=["cat"], category_ids=[7], drawn_score=0.5)
    with folder:
        for index, path in enumerate(paths):
            folder.add(
                Prediction(
                    boxes=np.array([box_of(index)], np.float32),
                    scores=np.array([0.9], np.float32),
                    labels=np.array([0]),
                    run_lengths=None,
                    height=40,
                    width=40,
                    class_names=("cat",),
                    category_ids=(7,),
                    source=Source(str(path), partial(np.zeros, (40, 40, 3), np.uint8), path),
                )
            )
    return tmp_path / "out"


def truth_file(root: Path) -> Path:
    """The same files under other numbers, in another order."""
    order = [NAMES.index(name) for name in sorted(NAMES, key=lambda name: (len(name), name))]
    images, annotations = [], []
    for number, index in enumerate(order, start=1):
        x1, y1, x2, y2 = box_of(index)
        images.append({"id": number, "file_name": NAMES[index], "height": 40, "width": 40})
        annotations.append(
            {"id": number, "image_id": number, "category_id": 7, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            | {"area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
        )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "cat"}]}
    _ = (root / "truth.json").write_text(json.dumps(content))
    return root / "truth.json"


def test_predictions_of_a_folder_are_scored_by_their_file_names(predicted: Path, tmp_path: Path) -> None:
    truth = read_ground_truth(truth_file(tmp_path))
    results = read_results(predicted / "predictions.json", truth)
    assert results.image_ids.tolist() != list(range(1, len(NAMES) + 1))
    assert evaluate_coco(truth, results)["bbox/AP"] == pytest.approx(1)


def test_pycocotools_takes_them_and_overlooks_the_names(predicted: Path, tmp_path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(truth_file(tmp_path))).loadRes(str(predicted / "predictions.json"))
    assert len(loaded.getAnnIds()) == len(NAMES)
    entries = json.loads((predicted / "predictions.json").read_text())
    assert {"image_id", "category_id", "bbox", "score", "file_name"} <= set(entries[0])
    assert [entry["image_id"] for entry in entries] == list(range(1, len(NAMES) + 1))
    listed = json.loads((predicted / "images.json").read_text())["images"]
    assert [(image["id"], image["file_name"]) for image in listed] == [
        (entry["image_id"], entry["file_name"]) for entry in entries
    ]


def test_a_name_that_is_no_utf8_can_be_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff.jpg")
    with PredictionFolder(tmp_path / "out", [path], class_names=["a"], category_ids=[1], drawn_score=0.5):
        pass
    name = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert name == []
    folder = PredictionFolder(tmp_path / "out", [path], class_names=["a"], category_ids=[1], drawn_score=0.5)
    assert folder.planned[str(path)]["file_name"].encode().endswith("a\ufffd.jpg".encode())
