"""Training and scoring are two views of one file: the same annotations, with the same boxes and classes, or none."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycocotools_mask

from resdet.coco import annotation_file
from resdet.coco.ground_truth import GroundTruth, read_ground_truth
from resdet.coco.reader import AREA, CLIPPED, CONVERTED, RENAMED
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults, evaluate_coco

coco_mask: Any = pycocotools_mask
HEIGHT, WIDTH = 40, 60
IMAGES = (7, -3, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(len(IMAGES)):
        (tmp_path / f"{number}.jpg").touch()
    return tmp_path


def written(folder: Path, annotations: list[dict[str, Any]], categories: list[dict[str, Any]] | None = None) -> Path:
    """Three images of 60 x 40 pixels (width x height), with classes -2 (cat) and 5 (dog) unless given."""
    images = [
        {"id": image, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH}
        for number, image in enumerate(IMAGES)
    ]
    categories = categories or [{"id": 5, "name": "dog"}, {"id": -2, "name": "cat"}]
    path = folder / "a.json"
    _ = path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def thing(number: int = 0, **fields: Any) -> dict[str, Any]:
    whole = {"id": number, "image_id": 7, "category_id": 5, "bbox": [10, 10, 20, 16], "area": 320, "iscrowd": 0}
    return {name: value for name, value in (whole | fields).items() if value is not ...}


@pytest.mark.parametrize("field", ["difficult", "ignore"])
def test_an_object_is_difficult_by_either_name(folder: Path, field: str) -> None:
    file = written(folder, [thing(0), thing(1, **{field: 1}), thing(2, **{field: 0}), thing(3, **{field: None})])
    assert read_ground_truth(file).difficult.tolist() == [False, True, False, False]


def assert_same(dataset: CocoDataset, truth: GroundTruth) -> None:
    """The same annotations in both views: ids, images, boxes, classes, crowds and masks."""
    images = np.repeat(dataset.image_ids, np.diff(dataset.offsets))
    trained = np.argsort(dataset.annotation_ids)
    scored = np.argsort(truth.annotation_ids)
    np.testing.assert_array_equal(dataset.annotation_ids[trained], truth.annotation_ids[scored])
    np.testing.assert_array_equal(images[trained], truth.image_ids[truth.image[scored]])
    np.testing.assert_array_equal(
        dataset.category_ids[dataset.labels[trained]], truth.category_ids[truth.label[scored]]
    )
    assert dataset.class_names == truth.class_names
    np.testing.assert_array_equal(dataset.crowd[trained], (truth.crowd | truth.difficult)[scored])
    np.testing.assert_array_equal(dataset.segmentations.present()[trained], truth.masks.present()[scored])
    corners = np.concatenate((truth.boxes[:, :2], truth.boxes[:, :2] + truth.boxes[:, 2:]), axis=1)
    np.testing.assert_allclose(dataset.boxes[trained], corners[scored], rtol=0, atol=0.0101)  # clipped below 0.01


COORDINATE = st.one_of(
    st.floats(-20, 80),
    st.integers(-5, 70),
    st.sampled_from([0, 1e-6, 0.01, 59.995, 60, 1e5, 1e8, 1e38, 1e39, 1e308, -1e9, "7", "x", None, True]),
)
POLYGON = st.lists(COORDINATE, max_size=9)
RUNS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from([[HEIGHT, WIDTH], [WIDTH, HEIGHT], [HEIGHT, WIDTH], [1, 1], None, [2**62, 2**62]]),
        "counts": st.one_of(
            st.sampled_from([[HEIGHT * WIDTH], [100, 0, 20, 50, HEIGHT * WIDTH - 170], [0, HEIGHT * WIDTH], [2**70]]),
            st.sampled_from(
                [
                    "",
                    "~",
                    "PPYo1",
                    coco_mask.encode(np.eye(HEIGHT, WIDTH, dtype=np.uint8, order="F"))["counts"].decode(),
                ]
            ),
            st.lists(st.integers(-3, 3000), max_size=5),
            st.text(alphabet=[chr(48 + digit) for digit in range(64)], max_size=8),
        ),
    },
)
ANNOTATION = st.fixed_dictionaries(
    {
        "image_id": st.sampled_from([7, -3, 0, 7, -3, 0, 7, -3, 0, 99, "7", 7.0]),
        "category_id": st.sampled_from([5, -2, 5, -2, 5, -2, 5, -2, 5, -2, 5, -2, -1, "5", "cat"]),
        "bbox": st.one_of(
            st.tuples(st.floats(0, 50), st.floats(0, 35), st.floats(1, 9), st.floats(1, 4)).map(list),
            st.tuples(st.floats(0, 50), st.floats(0, 35), st.floats(1, 9), st.floats(1, 4)).map(list),
            st.tuples(st.floats(-20, 70), st.floats(-20, 50), st.floats(-9, 90), st.floats(-9, 90)).map(list),
            st.lists(COORDINATE, min_size=3, max_size=5),
        ),
    },
    optional={
        "area": st.one_of(st.none(), st.floats(-5, 3000), st.sampled_from([0, "12", 1e9, 1e300])),
        "iscrowd": st.sampled_from([0, 1, 0, 1, 0, 1, True, None, 2, "1", 1.0]),
        "difficult": st.sampled_from([0, 1, None]),
        "ignore": st.sampled_from([0, 1, None]),
        "segmentation": st.one_of(st.none(), st.lists(POLYGON, max_size=2), POLYGON, RUNS, st.just("abc")),
    },
)
IDS = st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, "text"])  # 1: the first two annotations share an id


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(annotations=st.lists(ANNOTATION, min_size=1, max_size=5), ids=IDS)
def test_odd_files_are_the_same_to_training_and_scoring(
    folder: Path, annotations: list[dict[str, Any]], ids: int | str
) -> None:
    for number, annotation in enumerate(annotations):
        annotation["id"] = str(number) if ids == "text" else number - (number == ids == 1)
    path = written(folder, annotations)
    try:
        dataset = read_set(path, folder)
    except UserError as error:
        refusal = re.escape(str(error))
        with pytest.raises(UserError, match=refusal):
            _ = read_ground_truth(path)
        with pytest.raises(UserError, match=refusal):
            _ = read_ground_truth(path, count_skipped=True)
        return
    truth = read_ground_truth(path)
    assert_same(dataset, truth)
    assert_same(dataset, dataset.ground_truth())
    report = dataset.report
    assert report.annotations_read == report.annotations_kept + sum(note.count for note in report.skipped.values())
    assert_perfect(dataset, truth)
    figures = evaluate_coco(dataset.ground_truth(count_skipped=True), CocoResults())
    assert all(value in (None, 0) for value in figures.values())


def assert_perfect(dataset: CocoDataset, truth: GroundTruth) -> None:
    """Detections of every object that training keeps are all that a detector can do."""
    results = CocoResults()
    for index, image_id in enumerate(dataset.image_ids.tolist()):
        rows = dataset.rows(index)
        scores, categories = np.full(rows.stop - rows.start, 0.9), dataset.category_ids[dataset.labels[rows]]
        results.add(image_id, dataset.boxes[rows], scores, categories)
    sizes = dataset.boxes[:, 2:] - dataset.boxes[:, :2]
    if (sizes > 1).all():  # of smaller ones float32 and the tolerance of clipping cost overlap
        assert evaluate_coco(truth, results)["bbox/AP"] in (None, pytest.approx(1))


def test_every_annotation_has_one_verdict(folder: Path) -> None:
    annotations = [
        thing(0),
        thing(1, bbox=[50, 10, 20, 10]),
        thing(2, area=-1),
        thing(3, category_id="5"),
        thing(4, image_id=8),
        thing(5, bbox=[10, 10, 0, 5]),
        thing(6, bbox=[60, 10, 5, 5]),
    ]
    report = read_set(written(folder, annotations), folder).report
    assert {reason: note.examples for reason, note in report.skipped.items()} == {
        "image_id of no image": [4],
        "box without area": [5],
        "box outside its image": [6],
    }
    assert {reason: note.examples for reason, note in report.fixed.items()} == {CLIPPED: [1], AREA: [2], CONVERTED: [3]}
    assert report.annotations_kept == 4


def disk(x: float, y: float, radius: float) -> list[float]:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return np.stack((x + radius * np.cos(angles), y + radius * np.sin(angles)), axis=1).ravel().round(2).tolist()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[40, 25, 58, 25, 58, 39, 40, 39]], "mask outside its box"),
        ([disk(45, 18, 8)], "mask outside its box"),
        ({"size": [HEIGHT, WIDTH], "counts": [9, 1, HEIGHT * WIDTH - 10]}, "mask outside its box"),
        ({"size": [HEIGHT, WIDTH], "counts": [400, 10, 17, 13, HEIGHT * WIDTH - 440]}, "mask outside its box"),
        ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, "mask without a pixel"),
        ([[15, 15, 15.2, 15, 15.2, 15.3]], "mask without a pixel"),
        ([disk(20, 18, 6)], None),
        ([disk(45, 18, 8), disk(20, 18, 6)], None),
        ([[29, 10, 40, 10, 40, 20, 29, 20]], None),
        ({"size": [HEIGHT, WIDTH], "counts": [10 * HEIGHT + 10, 1, 50 * HEIGHT - 11]}, None),
        ({"size": [HEIGHT, WIDTH], "counts": [9 * HEIGHT, 40 * HEIGHT, 11 * HEIGHT]}, None),
    ],
)
def test_a_mask_without_a_pixel_in_its_box_is_left_out_and_counted(
    folder: Path, segmentation: Any, reason: str | None
) -> None:
    """The box is columns 10 to 30 and rows 10 to 26."""
    dataset = read_set(written(folder, [thing(segmentation=segmentation)]), folder)
    assert {name: note.examples for name, note in dataset.report.skipped_masks.items()} == (
        {reason: [0]} if reason else {}
    )
    assert dataset.report.masks == int(dataset.segmentations.present().sum()) == (0 if reason else 1)
    assert dataset.annotation_ids.tolist() == [0]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(-3, 63), min_size=6, max_size=12), st.booleans(), st.floats(0, 30), st.floats(0, 30))
def test_masks_agree_with_their_boxes_where_pycocotools_draws_a_pixel_in_them(
    folder: Path,
    numbers: list[float],
    whole: bool,  # noqa: FBT001  # drawn by hypothesis
    x: float,
    y: float,
) -> None:
    polygon = [float(round(number)) if whole else number for number in numbers[: len(numbers) // 2 * 2]]
    box = [x, y, 20.0, 9.0]
    encoded = coco_mask.merge(coco_mask.frPyObjects([polygon], HEIGHT, WIDTH))
    pixels = coco_mask.decode(encoded).astype(bool)
    seen = pixels[int(np.floor(y)) : int(np.ceil(y + 9)), int(np.floor(x)) : int(np.ceil(x + 20))].any()
    as_runs = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    far = any(value > 2 * HEIGHT for value in polygon[1::2])
    annotations = [thing(0, bbox=box, segmentation=[polygon]), thing(1, bbox=box, segmentation=as_runs)]
    masks = read_set(written(folder, annotations), folder).segmentations
    assert masks.present().tolist() == [seen and not far, seen]
    for index in np.flatnonzero(masks.present()).tolist():
        assert masks.encoded(index, HEIGHT, WIDTH)["counts"] == encoded["counts"]


def test_names_that_collide_are_told_apart_by_their_ids(folder: Path) -> None:
    names = ["cat", " Cat", "big  dog", "big dog ", "caf\u00e9", "cafe\u0301", "", None, " owl ", "bear"]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    dataset = read_set(written(folder, [thing(category_id=1)], categories), folder)
    assert dataset.class_names == (
        "cat (id 0)", "Cat (id 1)", "big  dog (id 2)", "big dog (id 3)", "caf\u00e9 (id 4)", "cafe\u0301 (id 5)",
        "category (id 6)", "category (id 7)", "owl", "bear",
    )  # fmt: skip
    assert dataset.report.fixed[RENAMED].count == 9
    assert read_ground_truth(written(folder, [thing(category_id=1)], categories)).class_names == dataset.class_names


def test_names_that_still_collide_are_refused(folder: Path) -> None:
    categories = [{"id": number, "name": name} for number, name in enumerate(["a", "A", "a (id 0)"])]
    for read in (lambda path: read_set(path, folder), read_ground_truth):
        with pytest.raises(UserError, match=r"categories 0 and 2 are both named 'a \(id 0\)'"):
            _ = read(written(folder, [], categories))


@pytest.mark.parametrize("category", [-1, -2, 0, 2**40, -(2**63)])
def test_no_category_id_is_special(folder: Path, category: int) -> None:
    categories = [{"id": category, "name": "cat"}, {"id": 5, "name": "dog"}]
    dataset = read_set(written(folder, [thing(category_id=category)], categories), folder)
    truth = dataset.ground_truth()
    results = CocoResults()
    results.add(7, dataset.boxes, np.array([0.9]), dataset.category_ids[dataset.labels])
    assert evaluate_coco(truth, results)["bbox/AP/cat"] == pytest.approx(1)


def test_training_needs_names_and_sizes_that_scoring_does_not(folder: Path) -> None:
    path = written(folder, [thing()])
    for field, words in (("file_name", "'file_name' is missing"), ("height", "height and width are not both given")):
        content = json.loads(path.read_text())
        del content["images"][1][field]
        changed = folder / "changed.json"
        _ = changed.write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"image id -3.*{words}"):
            _ = read_set(changed, folder)
        assert read_ground_truth(changed).annotation_ids.tolist() == [0]


def test_a_missing_image_is_not_scored_unless_asked_for(folder: Path) -> None:
    path = written(folder, [thing(), thing(1, image_id=0)])
    (folder / "2.jpg").unlink()
    dataset = read_set(path, folder, max_missing_fraction=0.5)
    assert dataset.scored_images() == [7, -3]
    assert dataset.scored_images(count_skipped=True) == [7, -3, 0]
    assert dataset.take(np.array([2, 0])).scored_images() == [7]


def test_the_file_is_read_once_for_both_views(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(folder, [thing()])
    reads: list[Path] = []
    opened = annotation_file.opened_regular

    def counted(path: Path) -> AbstractContextManager[BufferedReader]:
        reads.append(path)
        return opened(path)

    monkeypatch.setattr(annotation_file, "opened_regular", counted)
    dataset = read_set(path, folder)
    _ = dataset.ground_truth(), dataset.ground_truth(count_skipped=True)
    assert reads == [path]


def test_run_lengths_whose_sum_wraps_around_are_refused(folder: Path) -> None:
    counts = [2**63 - 1, 1, 2**63 - 1, 1, HEIGHT * WIDTH]  # 2^64 more than the pixels
    mask = {"size": [HEIGHT, WIDTH], "counts": counts}
    with pytest.raises(UserError, match=r"annotation id 0 .*counts are no run lengths that add up to 40 x 60 pixels"):
        _ = read_set(written(folder, [thing(segmentation=mask)]), folder)


@pytest.mark.parametrize(
    ("polygon", "cut"),
    [
        ([10, 10, 30, 10, 30, 26], False),
        ([-0.5, 10, 30, 10, 30, 26], False),  # as COCO's own
        ([-3, 10, 30, 10, 30, 26], True),
        ([10, 10, WIDTH + 3, 10, 30, 26], True),
        ([10, 10, 30, 10, 30, HEIGHT + 3], True),
    ],
)
def test_a_polygon_beyond_any_border_is_counted_as_cut(folder: Path, polygon: list[float], *, cut: bool) -> None:
    dataset = read_set(written(folder, [thing(bbox=[10, 10, 20, 16], segmentation=[polygon])]), folder)
    assert ("polygon cut at its image's border" in dataset.report.fixed) is cut
