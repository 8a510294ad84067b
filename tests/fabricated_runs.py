"""Finished runs without training: the ground truth's boxes, moved a little."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resdet.analysis.compare.compare_backbones import Request, compare_backbones
from resdet.analysis.compare.comparison import read_comparison
from resdet.analysis.compare.plan import PlannedRun, planned_runs, read_contestants
from resdet.config import to_yaml
from resdet.data.batches.loader import open_split
from resdet.evaluation.coco import evaluate_coco, read_ground_truth, read_results

NANO = str(Path(__file__).parents[1] / "configs" / "nano.yaml")
FABRICATED = ("data.shapes.val_images=40", "train.steps=40", "train.device=cpu")


def request(output: Path, *backbones: str, seeds: int = 2, overrides: Sequence[str] = FABRICATED) -> Request:
    return Request([NANO], overrides, backbones, seeds, output, resamples=100, rounds=0)


def fabricate(wanted: Request, shifts: dict[str, float], *, images_per_second: float = 20.0) -> list[PlannedRun]:
    """Finished runs whose boxes are the ground truth's, moved by so much of their width, a little more each seed."""
    contestants = read_contestants(wanted.files, wanted.overrides, wanted.backbones)
    val_set = open_split(contestants[0].config.data, "val")
    truth = read_ground_truth(val_set.annotations)
    runs = planned_runs(contestants, wanted.seeds, wanted.output)
    for run in runs:
        run.folder.mkdir(parents=True)
        _ = (run.folder / "config.yaml").write_text(to_yaml(run.config))
        moved = truth.boxes.copy()
        every = np.arange(len(moved)) % 3 / 2  # a third stays where it is, a third moves half as far
        moved[:, 0] += moved[:, 2] * (shifts[run.contestant] + 0.002 * run.seed) * every
        detections = [
            {
                "image_id": int(truth.image_ids[truth.image[i]]),
                "category_id": int(truth.category_ids[truth.label[i]]),
                "bbox": box,
                "score": 1 - i / 1000,
            }
            for i, box in enumerate(moved.tolist())
        ]
        predictions = run.folder / "predictions.json"
        _ = predictions.write_text(json.dumps(detections))
        figures = evaluate_coco(truth, read_results(predictions, truth), image_ids=val_set.image_ids.tolist())
        _ = (run.folder / "eval.json").write_text(json.dumps({**figures, "step": run.config.train.steps}))
        records = [{"step": s, "loss": 1 / s, "images_per_second": images_per_second} for s in (10, 20, 30, 40)]
        _ = (run.folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return runs


def report(wanted: Request) -> dict[str, Any]:
    outcome = compare_backbones(wanted, jobs=1, devices=[], train=False, say=lambda _: None)
    assert outcome.comparison is not None
    assert read_comparison(wanted.output / "compare.json") == outcome.comparison
    return json.loads((wanted.output / "compare.json").read_text())
