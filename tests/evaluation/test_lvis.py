"""LVIS's rules: only classes that were looked for count, and extra detections of classes marked in part do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdet.coco.federated import Federated
from resdet.coco.ground_truth import ground_truth_from_dict
from resdet.coco.results import CocoResults
from resdet.data.sets.formats import read_records
from resdet.errors import UserError
from resdet.evaluation.coco import read_results
from resdet.evaluation.lvis import LIMIT, evaluate_lvis
from resdet.evaluation.metrics import METRICS, Scoring, meaning

SIZE = 100


def content(images: list[dict[str, Any]], objects: list[tuple[int, int, list[float]]]) -> dict[str, Any]:
    """Images of 100 x 100 pixels; objects are (image, class, box); class 1 is rare, 2 common, 3 frequent."""
    return {
        "images": [
            {
                "id": number,
                "coco_url": f"http://images.cocodataset.org/val2017/{number}.jpg",
                "height": SIZE,
                "width": SIZE,
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [],
                **image,
            }
            for number, image in enumerate(images, start=1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": label,
                "bbox": box,
                "area": box[2] * box[3],
                "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3],
                                  box[0], box[1] + box[3]]],
            }
            for number, (image, label, box) in enumerate(objects, start=1)
        ],
        "categories": [{"id": n, "name": f"c{n}", "frequency": f} for n, f in ((1, "r"), (2, "c"), (3, "f"))],
    }  # fmt: skip


def found(detections: list[tuple[int, int, list[float], float]], folder: Path, truth: Any) -> CocoResults:
    path = folder / "found.json"
    rows = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in detections]
    _ = path.write_text(json.dumps(rows))
    return read_results(str(path), truth)


BOX, ELSEWHERE = [10.0, 10.0, 20.0, 20.0], [60.0, 60.0, 20.0, 20.0]


def figures(
    folder: Path, data: dict[str, Any], detections: list[tuple[int, int, list[float], float]]
) -> dict[str, float | None]:
    truth = ground_truth_from_dict(data)
    return evaluate_lvis(truth, found(detections, folder, truth))


def test_a_class_that_was_not_looked_for_does_not_count(tmp_path: Path) -> None:
    """One object found, and a better detection of its class in image 2: false if it is absent there, else nothing."""
    detections = [(1, 1, BOX, 0.5), (2, 1, BOX, 0.9)]
    unknown = content([{}, {}], [(1, 1, BOX)])
    assert figures(tmp_path, unknown, detections)["lvis/AP"] == pytest.approx(1)
    absent = content([{}, {"neg_category_ids": [1]}], [(1, 1, BOX)])
    assert figures(tmp_path, absent, detections)["lvis/AP"] == pytest.approx(0.5)
    ordinary = content([{}, {"neg_category_ids": None}], [(1, 1, BOX)])  # an image of another set: all classes
    assert figures(tmp_path, ordinary, detections)["lvis/AP"] == pytest.approx(0.5)


def test_extra_detections_of_a_class_marked_in_part_do_not_count(tmp_path: Path) -> None:
    detections = [(1, 2, BOX, 0.5), (1, 2, ELSEWHERE, 0.9)]
    assert figures(tmp_path, content([{}], [(1, 2, BOX)]), detections)["lvis/AP"] == pytest.approx(0.5)
    partial = content([{"not_exhaustive_category_ids": [2]}], [(1, 2, BOX)])
    assert figures(tmp_path, partial, detections)["lvis/AP"] == pytest.approx(1)


def test_rare_common_and_frequent_classes_have_figures_of_their_own(tmp_path: Path) -> None:
    data = content([{}], [(1, 1, BOX), (1, 2, BOX)])
    got = figures(tmp_path, data, [(1, 1, BOX, 0.5)])
    assert (got["lvis/APr"], got["lvis/APc"], got["lvis/APf"]) == (pytest.approx(1), 0, None)
    assert got["lvis/AP"] == pytest.approx(0.5)


def test_the_best_300_detections_of_an_image_count(tmp_path: Path) -> None:
    data = content([{"neg_category_ids": [3]}], [(1, 1, BOX)])
    others = [(1, 3, ELSEWHERE, 0.9)] * (LIMIT - 1)
    assert figures(tmp_path, data, [*others, (1, 1, BOX, 0.5)])["lvis/AP"] == pytest.approx(1)
    assert figures(tmp_path, data, [*others, (1, 3, BOX, 0.9), (1, 1, BOX, 0.5)])["lvis/AP"] == 0


def random_case(seed: int) -> tuple[dict[str, Any], list[tuple[int, int, list[float], float]]]:
    rng = np.random.default_rng(seed)
    objects = [
        (int(rng.integers(1, 9)), int(rng.integers(1, 4)), [*rng.integers(0, 60, 2), *rng.integers(5, 40, 2)])
        for _ in range(30)
    ]
    objects = [(image, label, [float(side) for side in box]) for image, label, box in objects]
    images: list[dict[str, Any]] = []
    for image in range(1, 9):
        there = {label for at, label, _ in objects if at == image}
        images.append(
            {
                "neg_category_ids": [n for n in (1, 2, 3) if n not in there and rng.random() < 0.5],
                "not_exhaustive_category_ids": [n for n in there if rng.random() < 0.4],
            }
        )
    detections = [
        (image, label, [side + rng.normal(0, 2) for side in box], float(rng.random())) for image, label, box in objects
    ]
    detections += [
        (int(rng.integers(1, 9)), int(rng.integers(1, 4)), [float(s) for s in rng.integers(1, 50, 4)], rng.random())
        for _ in range(60)
    ]
    return content(images, objects), [(i, c, [max(s, 1.0) for s in b], float(s)) for i, c, b, s in detections]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("backend", ["pycocotools", "hotcoco"])
def test_the_figures_are_those_of_hotcocos_lvis(tmp_path: Path, seed: int, backend: str) -> None:
    hotcoco: Any = pytest.importorskip("hotcoco")
    data, detections = random_case(seed)
    truth = ground_truth_from_dict(data)
    ours = evaluate_lvis(truth, found(detections, tmp_path, truth), backend=backend)
    _ = (tmp_path / "truth.json").write_text(json.dumps(data))
    theirs = hotcoco.COCO(str(tmp_path / "truth.json"))
    evaluation = hotcoco.COCOeval(theirs, theirs.load_res(str(tmp_path / "found.json")), "bbox", lvis_style=True)
    evaluation.run()
    expected = evaluation.get_results()
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"):
        value = ours[f"lvis/{name}"]
        assert (-1 if value is None else value) == pytest.approx(expected[name], abs=1e-9), name


def test_masks_follow_the_same_rules(tmp_path: Path) -> None:
    data = content([{"not_exhaustive_category_ids": [2]}, {}], [(1, 2, BOX), (1, 1, BOX)])
    truth = ground_truth_from_dict(data)
    masks = [truth.masks.encoded(row, SIZE, SIZE) for row in range(2)]
    elsewhere = {"size": [SIZE, SIZE], "counts": [6060, 20, SIZE * SIZE - 6080]}
    rows = [
        {
            "image_id": 1,
            "category_id": 2,
            "segmentation": {**masks[0], "counts": masks[0]["counts"].decode()},
            "score": 0.5,
        },
        {"image_id": 1, "category_id": 2, "segmentation": elsewhere, "score": 0.9},
        {"image_id": 2, "category_id": 2, "segmentation": elsewhere, "score": 0.9},
    ]
    _ = (tmp_path / "found.json").write_text(json.dumps(rows))
    results = read_results(str(tmp_path / "found.json"), truth)
    for backend in ("pycocotools", "auto"):
        got = evaluate_lvis(truth, results, iou_type="segm", backend=backend)
        assert (got["lvis-segm/APc"], got["lvis-segm/APr"]) == (pytest.approx(1), 0)


def test_other_files_are_refused(tmp_path: Path) -> None:
    data = content([{"neg_category_ids": None}], [(1, 1, BOX)])
    truth = ground_truth_from_dict(data)
    assert truth.federated is None
    with pytest.raises(UserError, match="no image has neg_category_ids"):
        _ = METRICS["lvis"].score(truth, found([(1, 1, BOX, 0.5)], tmp_path, truth), Scoring())


def test_images_are_named_by_their_address_and_files_say_that_they_are_federated(tmp_path: Path) -> None:
    _ = (tmp_path / "lvis.json").write_text(json.dumps(content([{}, {}], [(1, 1, BOX)])))
    records = read_records(tmp_path / "lvis.json")
    assert [image.file_name for image in records.images] == ["val2017/1.jpg", "val2017/2.jpg"]
    assert meaning("lvis/APr") == "LVIS's average precision of rare (r), common and frequent classes: r"


def test_the_order_of_images_may_change() -> None:
    before = Federated(
        np.array([True, False, True]), np.array([[0, 1], [2, 0]]), np.zeros((0, 2), np.int64), ("r", "c")
    )
    after = before.reordered(np.array([2, 0, 1]))
    assert after.federated.tolist() == [True, True, False]
    assert after.absent.tolist() == [[1, 1], [0, 0]]
