"""What a prediction offers: objects, filters, drawings, crops, COCO results, supervision, a page in a notebook."""

from __future__ import annotations

import base64
import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from resdet.coco.run_lengths import RunLengths
from resdet.drawing.boxes import class_color
from resdet.errors import UserError
from resdet.predict.prediction import Prediction
from resdet.predict.sources import Source

NAMES = ("cat", "<script>alert(1)</script>", "dog\x1b[31m")
IMAGE = np.random.default_rng(0).integers(0, 100, (40, 60, 3), dtype=np.uint8)
BOXES = [[1.5, 2.0, 21.5, 12.0], [30.0, 10.0, 50.0, 30.0], [2.0, 20.0, 22.0, 36.0]]


def rectangle(box: list[float]) -> RunLengths:
    mask = np.zeros((40, 60), np.uint8, order="F")
    x1, y1, x2, y2 = map(int, box)
    mask[y1:y2, x1:x2] = 1
    return RunLengths(**coco_mask.encode(mask))


def prediction(*, masks: bool = False) -> Prediction:
    return Prediction(
        boxes=np.array(BOXES, np.float32),
        scores=np.array([0.9, 0.75, 0.25], np.float32),
        labels=np.array([0, 2, 1]),
        run_lengths=[rectangle(box) for box in BOXES] if masks else None,
        height=40,
        width=60,
        class_names=NAMES,
        category_ids=(5, 17, 90),
        source=Source("photo.jpg", partial(np.asarray, IMAGE), Path("photo.jpg")),
        pixels=IMAGE,
    )


def test_it_is_a_sequence_of_objects() -> None:
    found = prediction()
    assert len(found) == 3
    first, *_, last = found
    assert (first.box, first.score, first.label) == ((1.5, 2.0, 21.5, 12.0), pytest.approx(0.9), 0)
    assert (first.class_name, first.category_id) == ("cat", 5)
    assert found[-1] == last
    assert found.names == [NAMES[0], NAMES[2], NAMES[1]]
    with pytest.raises(IndexError):
        _ = found[3]


@pytest.mark.parametrize("chosen", [slice(0, 2), [0, 1], np.array([True, True, False]), np.array([0, 1])])
def test_a_part_of_it_is_a_prediction(chosen: slice | list[int] | np.ndarray) -> None:
    part = prediction(masks=True)[chosen]
    assert part.scores.tolist() == pytest.approx([0.9, 0.75])
    assert part.run_lengths == [rectangle(box) for box in BOXES[:2]]
    assert part.image is IMAGE


def test_objects_are_chosen_by_score_class_and_number() -> None:
    found = prediction()
    assert found.chosen(score=0.75).labels.tolist() == [0, 2]
    assert found.chosen(classes=["cat", NAMES[1]]).labels.tolist() == [0, 1]
    assert found.chosen(most=1).labels.tolist() == [0]
    assert len(found.chosen(classes=[])) == 0
    with pytest.raises(UserError, match="no class 'cats'; did you mean 'cat'"):
        _ = found.chosen(classes=["cats"])
    with pytest.raises(UserError, match=r"is one text; give a list of names, \['cat'\]"):
        _ = found.chosen(classes="cat")


def test_masks_are_arrays_over_the_image_and_run_lengths() -> None:
    found = prediction(masks=True)
    assert found.masks is not None
    assert (found.masks.shape, found.masks.dtype) == ((3, 40, 60), np.bool_)
    assert found.masks.sum((1, 2)).tolist() == [20 * 10, 20 * 20, 20 * 16]
    for (x1, y1, x2, y2), mask in zip(np.array(BOXES).astype(int).tolist(), found.masks, strict=True):
        assert mask[y1:y2, x1:x2].all()
    for one, mask in zip(found, found.masks, strict=True):
        assert one.mask is not None
        np.testing.assert_array_equal(one.mask, mask)
    assert found[[]].masks is not None
    assert prediction().masks is None


def test_a_drawing_is_a_picture_of_the_objects_above_a_score(tmp_path: Path) -> None:
    found = prediction()
    drawn = found.draw(min_side=0)
    assert drawn.size == (60, 40)
    assert (np.asarray(drawn) == class_color(0)).all(2).any()
    assert not (np.asarray(drawn) == class_color(1)).all(2).any(), "its score is below one half"
    assert (np.asarray(found.draw(score=0.0, min_side=0)) == class_color(1)).all(2).any()
    assert found.draw().size == (480, 320)
    for name in ("a.jpg", "a.png", "a.webp", "b.JPEG"):
        with Image.open(found.save(tmp_path / name)) as saved:
            assert saved.size == (480, 320)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(found.draw()))
    assert json.loads(found.save(str(tmp_path / "a.json")).read_text()) == found.to_coco()


@pytest.mark.parametrize(("name", "message"), [("a.gif", r"\.gif is no format"), ("a", "no suffix is no format")])
def test_a_format_that_is_not_written_is_one_line(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ = prediction().save(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot be written \(No such file or directory\); choose another file"):
        _ = prediction().save(tmp_path / "absent/a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_crops_are_the_pixels_that_a_box_touches() -> None:
    first, second = prediction().crops()
    np.testing.assert_array_equal(np.asarray(first), IMAGE[2:12, 1:22])
    np.testing.assert_array_equal(np.asarray(second), IMAGE[10:30, 30:50])
    wide = prediction().crops(score=0.8, margin=0.5)
    np.testing.assert_array_equal(np.asarray(wide[0]), IMAGE[0:17, 0:32])
    assert len(prediction().crops(score=0.0)) == 3


@pytest.mark.parametrize("box", [[60, 40, 60, 40], [0, 0, 0, 0], [59.5, 39.5, 60, 40]])
def test_a_crop_has_at_least_one_pixel(box: list[float]) -> None:
    found = prediction()
    found.boxes[0] = box
    assert found.crops(score=0.8)[0].size == (1, 1)


def test_coco_results_have_the_ids_of_the_data_and_boxes_of_a_corner_and_sides() -> None:
    first = prediction(masks=True).to_coco(image_id=7)[0]
    assert first["image_id"] == 7
    assert first["category_id"] == 5
    assert first["bbox"] == [1.5, 2.0, 20.0, 10.0]
    assert first["segmentation"] == {"size": [40, 60], "counts": rectangle(BOXES[0])["counts"].decode()}
    assert "segmentation" not in prediction().to_coco()[0]
    assert prediction()[[]].to_coco() == []


def test_supervision_gets_boxes_masks_scores_and_names() -> None:
    supervision = pytest.importorskip("supervision")
    detections = prediction(masks=True).to_supervision()
    assert isinstance(detections, supervision.Detections)
    np.testing.assert_array_equal(detections.xyxy, np.array(BOXES, np.float32))
    assert detections.confidence is not None
    assert detections.confidence.tolist() == pytest.approx([0.9, 0.75, 0.25])
    assert list(detections.data["class_name"]) == [NAMES[0], NAMES[2], NAMES[1]]
    assert detections.area.tolist() == [200, 400, 320], "of the masks"
    assert len(prediction()[[]].to_supervision()) == 0


def test_its_text_says_what_was_found_without_control_characters() -> None:
    text = repr(prediction(masks=True))
    assert text == (
        "<Prediction of photo.jpg, 40x60: 3 objects with masks, 2 with a score of at least 0.5: 1 cat, 1 dog\\x1b[31m>"
    )
    assert repr(prediction()[[]]) == ("<Prediction of photo.jpg, 40x60: 0 objects, 0 with a score of at least 0.5>")


def test_a_notebook_shows_the_drawing_and_names_are_never_markup() -> None:
    page = prediction()._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    data = page.partition("base64,")[2].partition('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (480, 320)
