"""A run's folder made by hand: four images, three classes with names that would like to be code, known mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdet.config import Config, to_yaml
from resdet.evaluation.coco import evaluate_coco, read_ground_truth, read_results

HOSTILE = ("<script>alert(1)</script>", '"onmouseover="alert(2)" x="', "</style><img src=x onerror=alert(3)>")
FILE_NAMES = ("one.png", 'a"><img src=x onerror=alert(4)>.png', "three.png", "'};alert(5);.png")


def annotations() -> dict[str, Any]:
    """Image 1 has two objects, image 2 one, image 3 one, image 4 none."""
    boxes = [(1, 1, [4, 4, 20, 20]), (1, 2, [34, 20, 20, 20]), (2, 2, [10, 10, 30, 30]), (3, 3, [5, 5, 40, 30])]
    return {
        "images": [{"id": i, "file_name": FILE_NAMES[i - 1], "height": 48, "width": 64} for i in (1, 2, 3, 4)],
        "categories": [{"id": k, "name": HOSTILE[k - 1]} for k in (1, 2, 3)],
        "annotations": [
            {
                "id": n,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "segmentation": [rectangle(box)],
            }
            for n, (image, category, box) in enumerate(boxes, start=1)
        ],
    }


def rectangle(box: list[int]) -> list[int]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def predictions() -> list[dict[str, Any]]:
    """Image 1: one right, one of the wrong class. Image 2: right at a low score. Image 3: missed; image 4: a box
    where nothing is."""
    return [
        {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [34, 20, 20, 20], "score": 0.8},
        {"image_id": 2, "category_id": 2, "bbox": [10, 10, 30, 30], "score": 0.3},
        {"image_id": 4, "category_id": 2, "bbox": [2, 2, 9, 9], "score": 0.6},
    ]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder; `found` are its predictions, `masks` gives figures of masks too."""

    def make(found: list[dict[str, Any]] | None = None, *, masks: bool = False) -> Path:
        images, run = tmp_path / "images", tmp_path / "my <b>run"
        images.mkdir()
        run.mkdir()
        for i, name in enumerate(FILE_NAMES):
            Image.fromarray(np.full((48, 64, 3), 60 + 40 * i, np.uint8)).save(images / name)
        truth_file, found_file = tmp_path / "truth.json", run / "predictions.json"
        _ = truth_file.write_text(json.dumps(annotations()))
        _ = found_file.write_text(json.dumps(predictions() if found is None else found))
        config = Config()
        config.data.val.annotations, config.data.val.images = str(truth_file), str(images)
        config.train.steps = 40
        _ = (run / "config.yaml").write_text(to_yaml(config))
        lines = [{"step": step, "loss": 2 / step, "loss_a": 1 / step, "loss_b": 1 / step, "lr": 0.01, "grad_norm": 1.0,
                  "images_per_second": 5.0} for step in range(1, 41)]  # fmt: skip
        truth = read_ground_truth(truth_file)
        results = read_results(found_file, truth)
        figures = evaluate_coco(truth, results)
        if masks:
            figures |= evaluate_coco(truth, results, iou_type="segm")
        lines += [{"step": 20, **figures}, {"step": 40, **figures}]
        _ = (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        _ = (run / "eval.json").write_text(json.dumps({**figures, "backend": "hotcoco 1.3.0", "step": 40}))
        counts = dict.fromkeys(HOSTILE, 2)
        report = {
            "annotations": str(truth_file),
            "images": 4,
            "objects": 4,
            "class_counts": counts,
            "missing_files": [],
        }
        _ = (run / "data_report.json").write_text(json.dumps({"train": report, "val": report}))
        return run

    return make
