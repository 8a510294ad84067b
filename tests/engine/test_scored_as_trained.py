"""A val file that a run accepts is one that it can score: no oddity that is skipped or mended ends a run later on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resdet.analysis.report.scored import open_scored
from resdet.config import Config
from resdet.data.batches.loader import open_split
from resdet.data.sets.coco import CocoDataset
from resdet.engine.evaluate import (
    evaluate,
    figures_of,
    images_to_score,
    predict_dataset,
    scoring_notes,
    unreadable_notes,
)
from resdet.engine.run_folder import RunFiles, read_run
from resdet.engine.train import train
from resdet.evaluation.coco import CocoResults
from resdet.structures import Batch, Detections

SQUARE = [[4, 5, 24, 5, 24, 21, 4, 21]]
ODD: dict[str, dict[str, Any]] = {
    "image_id of no image": {"image_id": 999},
    "negative area": {"area": -5},
    "negative width": {"bbox": [24, 5, -20, 16], "area": -320},
    "negative width and height": {"bbox": [24, 21, -20, -16]},
    "no width": {"bbox": [24, 5, 0, 3], "area": 2.9, "segmentation": [[24, 5, 23.5, 2]]},
    "box outside": {"bbox": [100, 100, 20, 16]},
    "odd polygon": {"area": None, "segmentation": [[*SQUARE[0], 3]]},
    "polygon far outside": {"area": None, "segmentation": [[4, 5, 500, 5, 500, 21, 4, 21]]},
    "flat polygon": {"area": None, "segmentation": SQUARE[0]},
    "nested polygon": {"area": None, "segmentation": [[[4, 5], [24, 5], [24, 21]]]},
    "polygon as text": {"area": None, "segmentation": json.dumps(SQUARE)},
    "list of run lengths": {"area": None, "segmentation": [{"size": [64, 64], "counts": [10, 4086]}]},
    "ids as text": {"image_id": "1", "category_id": "1"},
}


def changed(config: Config, folder: Path, change: dict[str, Any]) -> CocoDataset:
    """The val set, with a first annotation added that is odd."""
    source = open_split(config.data, "val")
    content = json.loads(source.annotations.read_text())
    first = content["annotations"][0]
    odd = {"bbox": [4, 5, 20, 16], "area": 320, "segmentation": SQUARE, "iscrowd": 0, "id": 10**6}
    content["annotations"].insert(0, odd | {key: first[key] for key in ("image_id", "category_id")} | change)
    path = folder / "odd.json"
    _ = path.write_text(json.dumps(content))
    config.data.val.annotations, config.data.val.images = str(path), str(source.images)
    return open_split(config.data, "val")


def perfect(dataset: CocoDataset) -> CocoResults:
    results = CocoResults()
    for index, image_id in enumerate(dataset.image_ids.tolist()):
        rows = dataset.rows(index)
        categories = dataset.category_ids[dataset.labels[rows]]
        results.add(image_id, dataset.boxes[rows], np.full(len(categories), 0.9), categories)
    return results


@pytest.mark.parametrize("name", ODD)
def test_perfect_detections_of_what_training_keeps_score_one(nano: Config, tmp_path: Path, name: str):
    dataset = changed(nano, tmp_path, ODD[name])
    figures = evaluate(torch.nn.Identity(), dataset, nano, results=perfect(dataset))
    assert figures["bbox/AP"] == pytest.approx(1)


@pytest.mark.parametrize("name", ["negative width", "no width", "box outside"])
def test_skipped_objects_count_as_missed_only_when_asked_for(nano: Config, tmp_path: Path, name: str):
    dataset = changed(nano, tmp_path, ODD[name])
    (note,) = scoring_notes(dataset, nano)
    assert "1 of" in note
    nano.eval.count_skipped = True
    counted = figures_of(perfect(dataset), dataset.ground_truth(count_skipped=True), dataset, nano)["bbox/AP"]
    assert counted is not None
    assert counted < 0.999
    assert "are objects to find although training skips them" in scoring_notes(dataset, nano)[0]


def test_the_objects_of_missing_images_count_as_missed_only_when_asked_for(nano: Config, tmp_path: Path):
    dataset = open_split(nano.data, "val")
    content = json.loads(dataset.annotations.read_text())
    content["images"].append({"id": 10**6, "file_name": "gone.jpg", "height": 64, "width": 64})
    content["annotations"].append(content["annotations"][0] | {"id": 10**6, "image_id": 10**6})
    path = tmp_path / "gone.json"
    _ = path.write_text(json.dumps(content))
    nano.data.val.annotations, nano.data.val.images = str(path), str(dataset.images)
    nano.data.on_bad_image, nano.data.max_bad_fraction = "skip", 0.5
    gone = open_split(nano.data, "val")
    results = perfect(dataset)
    assert figures_of(results, gone.ground_truth(), gone, nano)["bbox/AP"] == pytest.approx(1)
    assert "1 of" in scoring_notes(gone, nano)[0]
    nano.eval.count_skipped = True
    counted = figures_of(results, gone.ground_truth(count_skipped=True), gone, nano)["bbox/AP"]
    assert counted is not None
    assert counted < 0.999


def with_a_broken_image(config: Config, folder: Path) -> CocoDataset:
    """The val set in a folder of its own, where the first image has been cut to half of its bytes."""
    source = open_split(config.data, "val")
    images = folder / "broken"
    _ = shutil.copytree(source.images, images)
    content = source.path(0).read_bytes()
    _ = (images / source.file_names[0]).write_bytes(content[: len(content) // 2])
    config.data.val.annotations, config.data.val.images = str(source.annotations), str(images)
    config.data.on_bad_image, config.data.max_bad_fraction = "skip", 0.5
    return open_split(config.data, "val")


class FindsNothing(torch.nn.Linear):
    def predict(self, batch: Batch) -> Detections:
        count = len(batch.images)
        return Detections(
            boxes=torch.zeros(count, 1, 4),
            scores=torch.zeros(count, 1),
            labels=torch.zeros(count, 1, dtype=torch.int64),
            valid=torch.zeros(count, 1, dtype=torch.bool),
        )


@pytest.mark.parametrize("workers", [0, 1])
def test_the_objects_of_images_that_cannot_be_read_count_as_missed_only_when_asked_for(
    nano: Config, tmp_path: Path, workers: int
):
    nano.data.workers = workers
    dataset = with_a_broken_image(nano, tmp_path)
    broken, *rest = dataset.image_ids.tolist()
    results = predict_dataset(FindsNothing(1, 1), dataset, nano)
    assert list(results.unreadable) == [broken]
    assert images_to_score(dataset, results, nano) == rest
    (note,) = unreadable_notes(dataset, results, nano)
    assert f"1 of {len(dataset)} images cannot be read" in note
    assert dataset.file_names[0] in note
    found = perfect(dataset.take(np.arange(1, len(dataset))))
    found.unreadable = results.unreadable
    assert figures_of(found, dataset.ground_truth(), dataset, nano)["bbox/AP"] == pytest.approx(1)
    nano.eval.count_skipped = True
    counted = figures_of(found, dataset.ground_truth(), dataset, nano)["bbox/AP"]
    assert counted is not None
    assert counted < 0.999


def test_a_run_tells_of_images_that_cannot_be_read_and_its_report_leaves_them_out_too(nano: Config, tmp_path: Path):
    dataset = with_a_broken_image(nano, tmp_path)
    nano.train.steps = 2
    _ = train(nano, tmp_path / "run")
    (line,) = [
        line for line in RunFiles(tmp_path / "run").log.read_text().splitlines() if "images cannot be read" in line
    ]
    assert "left out of scoring" in line
    run = read_run(tmp_path / "run")
    assert list(run.unreadable) == dataset.image_ids[:1].tolist()
    assert open_scored(run).boxes.errors.ap50 == pytest.approx(run.figures["bbox/AP50"])


def test_one_line_for_each_limit_that_keeps_objects_from_being_found(nano: Config, tmp_path: Path):
    source = open_split(nano.data, "val")
    content = json.loads(source.annotations.read_text())
    first, second = (image["id"] for image in content["images"][:2])
    one, two = (category["id"] for category in content["categories"][:2])
    places = [(first, one)] * 101 + [(second, one)] * 60 + [(second, two)] * 60
    content["annotations"] = [
        {"id": number, "image_id": image, "category_id": category, "bbox": [4, 5, 20, 16], "area": 320, "iscrowd": 0}
        for number, (image, category) in enumerate(places, start=1)
    ]
    path = tmp_path / "crowded.json"
    _ = path.write_text(json.dumps(content))
    nano.data.val.annotations, nano.data.val.images = str(path), str(source.images)
    dataset = open_split(nano.data, "val")
    assert nano.model.box_head
    nano.model.box_head.detections = 110
    few, hundred = scoring_notes(dataset, nano)
    assert f"1 of {len(dataset)} images have more objects (up to 120) than model.box_head.detections=110" in few
    assert f"1 of {len(dataset)} images have more than 100 objects of one class (up to 101)" in hundred
    nano.model.box_head.detections = 120
    assert len(scoring_notes(dataset, nano)) == 1
