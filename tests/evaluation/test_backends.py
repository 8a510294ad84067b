"""pycocotools and hotcoco give the same figures, and ours are pycocotools' own wherever its are defined."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import time
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as pycocotools_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from resdet.errors import UserError
from resdet.evaluation import backends
from resdet.evaluation.backends import backend_name, chosen_backend
from resdet.evaluation.coco import CocoResults, GroundTruth, evaluate_coco, ground_truth_from_dict
from resdet.evaluation.proposals import evaluate_proposals

needs_hotcoco = pytest.mark.skipif(importlib.util.find_spec("hotcoco") is None, reason="hotcoco is not installed")
coco_mask: Any = pycocotools_mask
HEIGHT, WIDTH = 120, 160
CLASSES = (3, 7, 90)


def ellipse(box: np.ndarray) -> dict[str, Any]:
    """The mask of the ellipse in a box, as an uncompressed or compressed run-length encoding."""
    x, y, w, h = box
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = ((columns - x - w / 2) / max(w / 2, 1)) ** 2 + ((rows - y - h / 2) / max(h / 2, 1)) ** 2 <= 1
    mask = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {"size": mask["size"], "counts": mask["counts"].decode()}


def random_box(random: np.random.Generator) -> np.ndarray:
    w, h = np.exp(random.uniform(np.log(2), np.log(110), size=2))
    box = np.array([random.uniform(0, WIDTH - w), random.uniform(0, HEIGHT - h), w, h])
    return np.round(box) if random.random() < 0.5 else box  # whole numbers give equal overlaps


def generated_set(seed: int, *, ties: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A few images with crowds, images without objects or detections, shifted, doubled and stray detections."""
    random = np.random.default_rng(seed)
    images = [{"id": i, "height": HEIGHT, "width": WIDTH} for i in random.permutation(50)[: random.integers(1, 5)]]
    annotations, results = [], []
    for image in images:
        image["id"] = int(image["id"])
        boxes = [random_box(random) for _ in range(random.integers(0, 6))]
        for box in boxes:
            crowd = int(random.random() < 0.15)
            mask = ellipse(box)
            area = float(coco_mask.area(mask))
            kind = {"image_id": image["id"], "category_id": int(random.choice(CLASSES)), "iscrowd": crowd}
            annotations.append(
                {"id": len(annotations), **kind, "bbox": box.tolist(), "area": area, "segmentation": mask}
            )
        for _ in range(random.integers(0, 14)):
            near = boxes[random.integers(len(boxes))] if boxes and random.random() < 0.7 else random_box(random)
            box = near + random.normal(0, random.choice([0, 1, 5]), size=4)
            box[2:] = np.abs(box[2:])
            score = float(np.round(random.random(), 1 if ties else 12))
            mask = ellipse(box)
            kind = {"image_id": image["id"], "category_id": int(random.choice(CLASSES)), "score": score}
            results.append({**kind, "bbox": box.tolist(), "segmentation": mask})
    categories = [{"id": i, "name": f"class {i}"} for i in CLASSES]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def collected(entries: list[dict[str, Any]]) -> CocoResults:
    results = CocoResults()
    results.add_columns(
        np.array([entry["image_id"] for entry in entries], dtype=np.int64),
        np.array([entry["category_id"] for entry in entries], dtype=np.int64),
        np.array([entry["score"] for entry in entries]),
        np.array([entry["bbox"] for entry in entries]).reshape(-1, 4),
        [entry["segmentation"] for entry in entries],
    )
    return results


def assert_same_figures(ours: dict[str, float | None], theirs: dict[str, float | None], *, tolerance: float) -> None:
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        other = theirs[name]
        assert (value is None) == (other is None), name
        assert value is None or other is None or abs(value - other) <= tolerance, (name, value, other)


def assert_backends_agree(seed: int) -> None:
    data, entries = generated_set(seed)
    ground_truth, results = ground_truth_from_dict(data), collected(entries)
    for iou_type in ("bbox", "segm"):
        both = [evaluate_coco(ground_truth, results, iou_type=iou_type, backend=b) for b in ("pycocotools", "hotcoco")]
        assert_same_figures(both[0], both[1], tolerance=1e-12)
    both = [evaluate_proposals(ground_truth, results, backend=b) for b in ("pycocotools", "hotcoco")]
    assert_same_figures(both[0], both[1], tolerance=1e-12)


@needs_hotcoco
@pytest.mark.parametrize("seed", range(40))
def test_the_backends_agree(seed: int) -> None:
    assert_backends_agree(seed)


@needs_hotcoco
@pytest.mark.slow
def test_the_backends_agree_on_500_sets() -> None:
    for seed in range(500):
        assert_backends_agree(seed)


def plain_pycocotools(
    data: dict[str, Any], entries: list[dict[str, Any]], iou_type: Any, *, limits: list[int], classes: bool = True
) -> COCOeval:
    """pycocotools as its users call it; annotation ids from 1 and masks without boxes, which it needs to be right."""
    truth: Any = COCO()
    truth.dataset = {**data, "annotations": [{**a, "id": a["id"] + 1} for a in data["annotations"]]}
    if iou_type == "segm":
        entries = [{name: value for name, value in entry.items() if name != "bbox"} for entry in entries]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation: Any = COCOeval(truth, truth.loadRes(entries), iou_type)
        evaluation.params.useCats = int(classes)
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
        if classes:
            evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_without_equal_scores_the_figures_are_those_of_plain_pycocotools(iou_type: str) -> None:
    compared = 0
    for seed in range(100, 112):
        data, entries = generated_set(seed, ties=False)
        if not entries:
            continue
        theirs: Any = plain_pycocotools(data, entries, iou_type, limits=[1, 10, 100]).stats
        ours = evaluate_coco(ground_truth_from_dict(data), collected(entries), iou_type=iou_type, backend="auto")
        for value, other in zip(list(ours.values())[:12], theirs.tolist(), strict=True):
            assert (-1.0 if value is None else value) == pytest.approx(other, abs=1e-12)
        compared += 1
    assert compared >= 8


def test_proposal_recall_is_that_of_pycocotools_without_categories() -> None:
    for seed in range(200, 210):
        data, entries = generated_set(seed, ties=False)
        if not entries:
            continue
        theirs: Any = plain_pycocotools(data, entries, "bbox", limits=[1, 3, 10], classes=False)
        ours = evaluate_proposals(ground_truth_from_dict(data), collected(entries), limits=(1, 3, 10))
        recall = theirs.eval["recall"]  # (thresholds, 1, sizes, limits)
        for m, limit in enumerate((1, 3, 10)):
            for s, size in enumerate(("", "s", "m", "l")):
                value = ours[f"recall/AR{size}{limit}"]
                expected = float(recall[:, 0, s, m].mean())
                assert (-1.0 if value is None else value) == pytest.approx(expected, abs=1e-12)


def test_a_backend_is_named_with_its_version() -> None:
    name, version = backend_name("pycocotools").split()
    assert name == "pycocotools"
    assert version[0].isdigit()


def test_auto_is_the_fast_backend_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert chosen_backend("auto") == "hotcoco"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert chosen_backend("auto") == "pycocotools"
    with pytest.raises(UserError, match="hotcoco is not installed"):
        _ = chosen_backend("hotcoco")


def test_an_unknown_backend_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'hotcoco'"):
        _ = chosen_backend("hotcocoa")


def crowded_set(images: int, detections: int) -> tuple[GroundTruth, CocoResults]:
    """A data set of COCO's shape: 80 classes, about 7 objects an image, half of the detections near one of them."""
    random = np.random.default_rng(0)
    count = images * 7
    owner = np.sort(random.integers(1, images + 1, size=count))
    size = np.exp(random.normal(4, 1, size=(count, 2))).clip(4, 300)
    boxes = np.concatenate([random.uniform(0, 1, size=(count, 2)) * ([640, 480] - size), size], axis=1)
    classes = np.minimum(80, random.geometric(0.05, size=count))
    data = {
        "images": [{"id": i, "height": 480, "width": 640} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": str(i)} for i in range(1, 81)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for i, (image, label, box) in enumerate(zip(owner.tolist(), classes.tolist(), boxes.tolist(), strict=True))
        ],
    }
    chosen = random.integers(0, count, size=images * detections)
    near = random.random(len(chosen)) < 0.5
    found = boxes[chosen] + np.where(near, 0.1, 1.0)[:, None] * random.normal(size=(len(chosen), 4)) * size[
        chosen
    ].repeat(2, 1)
    found[:, 2:] = np.abs(found[:, 2:])
    results = CocoResults()
    image_ids = np.where(near, owner[chosen], random.integers(1, images + 1, size=len(chosen)))
    labels = np.where(near, classes[chosen], random.integers(1, 81, size=len(chosen)))
    results.add_columns(image_ids, labels, random.random(len(chosen)), found, None)
    return ground_truth_from_dict(data), results


@needs_hotcoco
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_fast_backend_is_thirty_times_faster_on_5000_images_of_100_detections() -> None:
    ground_truth, results = crowded_set(5000, 100)
    seconds, figures = {}, {}
    for backend in ("hotcoco", "pycocotools"):
        start = time.perf_counter()
        figures[backend] = evaluate_coco(ground_truth, results, backend=backend)
        seconds[backend] = time.perf_counter() - start
    print(f"\n5,000 x 100: {seconds}, {seconds['pycocotools'] / seconds['hotcoco']:.0f} times faster")
    assert_same_figures(figures["hotcoco"], figures["pycocotools"], tolerance=1e-12)
    assert seconds["pycocotools"] >= 30 * seconds["hotcoco"]


@pytest.mark.parametrize("backend", ["pycocotools", pytest.param("hotcoco", marks=needs_hotcoco)])
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_classes_without_objects_change_no_figure_and_have_none(backend: str, iou_type: str) -> None:
    data, found = generated_set(9)
    more = {**data, "categories": [{"id": 1, "name": "before"}, *data["categories"], {"id": 99, "name": "after"}]}
    stray = [{**row, "category_id": number} for row in found[:4] for number in (1, 99)]
    alone, together = (
        evaluate_coco(ground_truth_from_dict(truth), collected(entries), iou_type=iou_type, backend=backend)
        for truth, entries in ((data, found), (more, [*found, *stray]))
    )
    assert {name: together[name] for name in alone} == alone
    absent = together.keys() - alone.keys()
    assert absent == {f"{iou_type}/{figure}/{name}" for figure in ("AP", "AR") for name in ("before", "after")}
    assert all(together[name] is None for name in absent)


def test_an_evaluator_gets_no_table_of_classes_without_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has a number for each class, threshold, recall, size and limit: 2 GB for 20,000 classes."""
    data, found = generated_set(9)
    data["categories"] += [{"id": number, "name": f"class {number}"} for number in range(1000, 21_000)]
    seen: list[int] = []
    real = backends._pycocotools

    def counted(problem: Any) -> Any:
        seen.append(problem.num_categories)
        return real(problem)

    monkeypatch.setattr(backends, "_pycocotools", counted)
    truth = ground_truth_from_dict(data)
    assert len(evaluate_coco(truth, collected(found), backend="pycocotools")) == 12 + 2 * len(data["categories"])
    assert seen == [len({row["category_id"] for row in data["annotations"]})] == [2]
