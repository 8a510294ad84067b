"""Results belong to the images that their file names say, whatever numbers both sides count by."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdet.coco.pairing import NamedImages, paired_ids
from resdet.errors import UserError
from resdet.evaluation.coco import evaluate_coco, ground_truth_from_dict, read_results

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "grün.jpg") for form in ("NFC", "NFD"))


def paired(truth: dict[int, str], *results: tuple[int, str]) -> list[int]:
    images = NamedImages("truth.json", np.array(list(truth)), list(truth.values()))
    ids = np.array([image_id for image_id, _ in results])
    return paired_ids(ids, [name for _, name in results], images, lambda index: f"result {index}").tolist()


@pytest.mark.parametrize(
    ("truth", "name", "image_id"),
    [
        (["1.jpg", "2.jpg", "10.jpg"], "10.jpg", 12),
        (["1.jpg", "2.jpg", "10.jpg"], "photos/here/10.jpg", 12),
        (["1.jpg", "2.jpg", "10.jpg"], "/data/photos/2.jpg", 11),
        (["1.jpg", "2.jpg", "10.jpg"], "./2.jpg", 11),
        (["1.jpg", "2.jpg", "10.jpg"], r"photos\2.jpg", 11),
        (["a/1.jpg", "b/1.jpg", "1.jpg"], "photos/b/1.jpg", 11),
        (["a/1.jpg", "b/1.jpg", "1.jpg"], "photos/c/1.jpg", 12),
        (["a/1.jpg", "b/1.jpg", "c/b/1.jpg"], "photos/c/b/1.jpg", 12),
        (["a/1.jpg", "b/1.jpg", "1.jpg"], "1.jpg", 12),
        (["train/1.jpg", "train/2.jpg"], "1.jpg", 10),  # predict was run inside train
        (["train/1.jpg", "train/2.jpg"], "elsewhere/2.jpg", 11),  # only the base name agrees, and is unique
        ([COMPOSED, "a.jpg"], DECOMPOSED, 10),
        ([COMPOSED, DECOMPOSED], DECOMPOSED, 11),
        (["a b.jpg", "a\nb.jpg", "-a.jpg"], "x/a\nb.jpg", 11),
        (["%d#'\".jpg", "🐈.jpg"], "p/🐈.jpg", 11),
    ],
)
def test_a_file_name_says_which_image_is_meant(truth: list[str], name: str, image_id: int) -> None:
    known = dict(enumerate(truth, start=10))
    for own in (1, 10, 11, 12):  # whatever id it comes with
        assert paired(known, (own, name)) == [image_id]


@pytest.mark.parametrize(
    ("truth", "results", "message"),
    [
        (["a/1.jpg", "b/1.jpg"], [(10, "c/1.jpg")], "'c/1.jpg' may be 'a/1.jpg' or 'b/1.jpg' of truth.json"),
        (["a/1.jpg", "b/1.jpg"], [(10, "1.jpg")], "'1.jpg' may be 'a/1.jpg' or 'b/1.jpg'"),
        (["1.jpg", "1.jpg"], [(3, "1.jpg")], "'1.jpg' may be '1.jpg' or '1.jpg'"),
        (["1.jpg", "2.jpg"], [(10, "1.jpg"), (11, "3.jpg")], "result 1: file_name '3.jpg' is none of truth.json"),
        (["1.jpg", "2.jpg"], [(10, "1.JPG")], "'1.JPG' is none of"),
        (["1.jpg", "2.jpg"], [(10, "/")], "'/' is none of"),
        (
            ["1.jpg", "2.jpg"],
            [(1, "1.jpg"), (1, "1.jpg"), (1, "2.jpg")],
            "result 2: file_name '2.jpg', but image_id 1 is '1.jpg' before",
        ),
        (
            ["1.jpg", "2.jpg"],
            [(1, "x/1.jpg"), (2, "y/1.jpg")],
            "'y/1.jpg' and 'x/1.jpg' of image_id 1 are both '1.jpg' of truth.json",
        ),
        (["1.jpg", "2.jpg"], [(1, "1.jpg"), (2, "1.jpg")], "are both '1.jpg'"),
    ],
)
def test_a_contradiction_is_refused_with_both_names(
    truth: list[str], results: list[tuple[int, str]], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        _ = paired(dict(enumerate(truth, start=10)), *results)
    assert message in str(caught.value)
    assert "take out the field 'file_name' to go by image_id" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_a_file_that_is_listed_twice_the_id_says_which() -> None:
    assert paired({10: "1.jpg", 11: "1.jpg"}, (11, "1.jpg"), (10, "1.jpg")) == [11, 10]


@given(st.lists(st.sampled_from(["a/1", "a/2", "b/1", "b/c/1", "3", "4"]), unique=True, min_size=1), st.randoms())
def test_names_decide_under_any_numbering(names: Sequence[str], random: Any) -> None:
    """The law: shuffled ids change nothing."""
    truth = dict(enumerate(names, start=100))
    own = list(range(100, 100 + len(names)))
    random.shuffle(own)
    results = [(image_id, f"root/{name}") for image_id, name in zip(own, names, strict=True) for _ in range(2)]
    assert paired(truth, *results) == [image_id for image_id in truth for _ in range(2)]


BOXES = {"1.jpg": [4, 5, 20, 16], "2.jpg": [30, 10, 24, 30], "10.jpg": [10, 30, 20, 25]}


def truth_file(names: dict[int, str | None]) -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "height": 64, "width": 64, **({} if n is None else {"file_name": n})} for i, n in names.items()
        ],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": list(BOXES.values())[i - 1], "area": 400, "iscrowd": 0}
            for i in names
        ],
    }


def results_file(root: Path, names: dict[int, str | None]) -> Path:
    """Perfect boxes of the files, in the order that they are counted in."""
    entries = []
    for image_id, name in names.items():
        box = BOXES[(name or list(BOXES)[image_id - 1]).split("/")[-1]]
        entries.append({"image_id": image_id, "category_id": 1, "bbox": box, "score": 0.9, "file_name": name})
    _ = (root / "results.json").write_text(json.dumps(entries))
    return root / "results.json"


def test_perfect_boxes_score_one_whatever_their_images_are_numbered(tmp_path: Path) -> None:
    """Files sort as 1, 10, 2, and the annotation file counts 1, 2, 10."""
    truth = ground_truth_from_dict(truth_file({1: "1.jpg", 2: "2.jpg", 3: "10.jpg"}), source="truth.json")
    results = read_results(results_file(tmp_path, {1: "img/1.jpg", 2: "img/10.jpg", 3: "img/2.jpg"}), truth)
    assert results.image_ids.tolist() == [1, 3, 2]
    assert evaluate_coco(truth, results)["bbox/AP"] == pytest.approx(1)
    assert [remark.split(": ", 1)[1] for remark in results.remarks] == [
        "paired by file_name; 2 images have another id in truth.json"
    ]


@pytest.mark.parametrize("named", ["truth", "results"])
def test_where_one_side_has_no_names_ids_pair(tmp_path: Path, named: str) -> None:
    names: dict[int, str | None] = {1: "1.jpg", 2: "2.jpg", 3: "10.jpg"}
    none = dict.fromkeys(names)
    truth = ground_truth_from_dict(truth_file(names if named == "truth" else none))
    results = read_results(results_file(tmp_path, none if named == "truth" else names), truth)
    assert (results.image_ids.tolist(), results.remarks) == ([1, 2, 3], ())
    assert evaluate_coco(truth, results)["bbox/AP"] == pytest.approx(1)


def test_results_of_which_some_have_a_name_are_refused(tmp_path: Path) -> None:
    truth = ground_truth_from_dict(truth_file({1: "1.jpg", 2: "2.jpg"}))
    with pytest.raises(UserError, match="no file_name, which other results of the file have"):
        _ = read_results(results_file(tmp_path, {1: "1.jpg", 2: None}), truth)


def test_boxes_that_are_corners_get_the_hint_of_check_data(tmp_path: Path) -> None:
    truth = ground_truth_from_dict(truth_file({1: "1.jpg", 2: "2.jpg", 3: "10.jpg"}))
    entries = [
        {"image_id": i, "category_id": 1, "bbox": [x, y, x + w, y + h], "score": 0.9}
        for i, (x, y, w, h) in enumerate(BOXES.values(), start=1)
        for _ in range(2)
    ]
    _ = (tmp_path / "results.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match=r"4 of 6 boxes exceed their image.*field 'bbox' looks like xyxy"):
        _ = read_results(tmp_path / "results.json", truth)


def test_boxes_that_hang_over_the_border_are_no_corners(tmp_path: Path) -> None:
    """A detector that does not clip: some of them could not be corners."""
    truth = ground_truth_from_dict(truth_file({1: "1.jpg", 2: "2.jpg", 3: "10.jpg"}))
    boxes = [[40, 40, 30, 30], [5, 5, 62, 62], [50, 10, 20, 60], [0, 0, 66, 66]]
    entries = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    _ = (tmp_path / "results.json").write_text(json.dumps(entries))
    assert len(read_results(tmp_path / "results.json", truth)) == 4
