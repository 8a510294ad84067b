"""Tries what commands do: a short training, and an evaluation whose figures are known."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import tempfile
import time
from pathlib import Path

import numpy as np

from resdet.analysis.doctor.finding import Finding
from resdet.coco.ground_truth import ground_truth_from_dict
from resdet.coco.results import CocoResults
from resdet.config import load_config
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.evaluation.coco import evaluate_coco
from resdet.text import said_by

STEPS = 20
# Two objects, one of them found exactly: the precision is 1 at the 51 of 101 recalls up to one half, 0 at the others.
KNOWN = {"bbox/AP": 51 / 101, "bbox/AP50": 51 / 101, "bbox/AR100": 0.5}


def training() -> Finding:
    """Trains the smallest config for a few steps in a temporary folder, on the device that a run would take."""
    start, said = time.perf_counter(), io.StringIO()
    with tempfile.TemporaryDirectory(prefix="resdet-doctor-") as folder:
        try:
            config = load_config("nano", overrides=[f"train.steps={STEPS}"])
            with contextlib.redirect_stdout(said):
                figures = train(config, Path(folder) / "run")
        except (UserError, RuntimeError, OSError) as error:
            return Finding(
                "training", "problem", said_by(error), "resdet train nano --output DIR shows the whole error"
            )
    seconds = time.perf_counter() - start
    if figures.get("bbox/AP") is None:
        return Finding("training", "problem", "no AP came out of it", "report this with the output of resdet doctor")
    return Finding("training", "ok", f"{STEPS} steps of nano, evaluation and checkpoint in {seconds:.1f} s")


def evaluators() -> Finding:
    """Scores detections whose figures follow from a pencil, with every evaluator that is installed."""
    names = [name for name in ("pycocotools", "hotcoco") if importlib.util.find_spec(name)]
    wrong = [f"{name}: {line}" for name in names for line in figures_off(name)]
    if wrong:
        return Finding("evaluator", "problem", "; ".join(wrong), f"pip install --force-reinstall {' '.join(names)}")
    return Finding("evaluator", "ok", f"{' and '.join(names)}: AP and AR as by hand")


def figures_off(backend: str) -> list[str]:
    """The figures of an evaluator that differ from the known ones."""
    boxes = [[10.0, 10.0, 20.0, 20.0], [50.0, 50.0, 30.0, 30.0]]
    truth = ground_truth_from_dict(
        {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 100}],
            "categories": [{"id": 1, "name": "thing"}],
            "annotations": [
                {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                for number, box in enumerate(boxes, start=1)
            ],
        }
    )
    results = CocoResults()
    results.add(1, np.array([[10.0, 10.0, 30.0, 30.0]]), np.array([0.9]), np.array([1]))
    figures = evaluate_coco(truth, results, backend=backend)
    return [
        f"{name} is {figures[name]}, not {value:.6f}"
        for name, value in KNOWN.items()
        if not math.isclose(figures[name] or 0.0, value, abs_tol=1e-9)
    ]
