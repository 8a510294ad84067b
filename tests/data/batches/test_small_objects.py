"""Objects under a pixel after the resize are left out by one rule, whatever is flipped, and counted."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from resdet.config import Config, load_config
from resdet.data.batches.loader import open_split, training_batches
from resdet.data.batches.small_objects import large_enough
from resdet.errors import UserError


def written(root: Path, sides: list[float], *, crowd: int = 0) -> Path:
    """Two images of 600 x 800 pixels with squares of these sides in a row, and a crowd region of 2 pixels."""
    images = [{"id": index, "file_name": f"{index}.png", "height": 600, "width": 800} for index in range(2)]
    annotations = []
    for image in images:
        assert cv2.imwrite(str(root / image["file_name"]), np.zeros((600, 800, 3), np.uint8))
        for column, side in enumerate([*sides, *[2] * crowd]):
            annotations.append(
                {"id": len(annotations), "image_id": image["id"], "category_id": 1 + column % 2}
                | {"bbox": [20 + 30 * column, 50, side, side], "area": side**2, "iscrowd": int(column >= len(sides))}
                | {"segmentation": [[20 + 30 * column, 50, 25 + 30 * column, 50, 22 + 30 * column, 60]]}
            )
    content = {"images": images, "annotations": annotations, "categories": [{"id": i, "name": str(i)} for i in (1, 2)]}
    _ = (root / "a.json").write_text(json.dumps(content))
    return root


def configured(root: Path, *overrides: str) -> Config:
    files = [f"data.{split}.{key}={root / value}" for split in ("train", "val") for key, value in
             (("annotations", "a.json"), ("images", "."))]  # fmt: skip
    sizes = ["data.augment.short_side=[120]", "data.augment.max_side=400"]  # a fifth
    return load_config(overrides=[*files, *sizes, "data.workers=0", "train.batch_size=2", *overrides])


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("flip", [0, 0.5, 1])
@pytest.mark.parametrize("mask_head", ["null", "{}"])
def test_the_same_objects_are_trained_on_whatever_is_augmented(
    tmp_path: Path, flip: float, photometric: float, mask_head: str
) -> None:
    """Of squares of 4, 5 (a pixel after the resize), 30 and 4.9 pixels two are left, and the crowd region."""
    config = configured(
        written(tmp_path, [4, 5, 30, 4.9], crowd=1),
        f"data.augment.flip={flip}",
        f"data.augment.photometric={photometric}",
        f"model.mask_head={mask_head}",
    )
    dataset = open_split(config.data, "train")
    for loaded in islice(training_batches(dataset, config, start_step=0, rank=0, world_size=1), 8):
        targets = loaded.batch.targets
        assert targets is not None
        assert targets.valid.sum(1).tolist() == [3, 3]
        assert targets.labels[:, :3].tolist() == [[1, 0, 0], [1, 0, 0]]
        assert targets.crowd[:, :3].tolist() == [[False, False, True]] * 2
        sides = (targets.boxes[..., 2:] - targets.boxes[..., :2])[:, :3].numpy()
        np.testing.assert_allclose(sides, [[[1, 1], [6, 6], [0.4, 0.4]]] * 2, atol=1e-4)
        if mask_head != "null":
            assert targets.masks is not None
            assert targets.masks[:, :2].flatten(2).any(2).all()


def test_what_is_left_out_is_counted_in_the_report_and_its_line(tmp_path: Path) -> None:
    config = configured(written(tmp_path, [4, 5, 30], crowd=1), "data.augment.short_side=[120,150,60]")
    report = open_split(config.data, "train").report
    counts = {reason: (note.count, note.examples) for reason, note in report.not_trained_on.items()}
    assert counts == {
        "under 1 pixel wide or high at data.augment.short_side=120, max_side=400": (2, [0, 4]),
        "under 1 pixel wide or high at data.augment.short_side=60, max_side=400": (4, [0, 1, 4, 5]),
    }
    assert "not trained on 2 (under 1 pixel wide or high at data.augment.short_side=120" in report.summary()
    assert "not_trained_on" in report.to_dict()
    assert report.annotations_read == report.annotations_kept == 8


def test_validation_leaves_no_object_out(tmp_path: Path) -> None:
    assert open_split(configured(written(tmp_path, [4, 30])).data, "val").report.not_trained_on == {}


def test_a_set_of_nothing_but_specks_is_refused(tmp_path: Path) -> None:
    config = configured(written(tmp_path, [2, 4], crowd=1))
    with pytest.raises(UserError, match=r"all 4 objects are under 1 pixel .*raise data.augment.short_side=\[120\]"):
        _ = open_split(config.data, "train")
    config.data.augment.short_side = [120, 300]
    assert len(open_split(config.data, "train")) == 2


@pytest.mark.parametrize("scale", [1.0, 0.5, 1 / 3, 0.1])
def test_a_side_of_exactly_one_pixel_is_large_enough_wherever_it_lies(scale: float) -> None:
    """Corners are float32 and so are a little off."""
    left = np.linspace(0, 16000, 5001)
    for side, expected in ((1 / scale, True), (1.01 / scale, True), (0.97 / scale, False)):
        boxes = np.stack((left, left, left + side, left + 50 / scale), axis=1).astype(np.float32)
        assert (large_enough(boxes, np.array([scale, scale])) == expected).all()
        assert (large_enough(boxes[:, [1, 0, 3, 2]], np.array([scale, scale])) == expected).all()


def test_height_and_width_have_their_own_scale() -> None:
    boxes = np.array([[0, 0, 2, 8], [0, 0, 8, 2]], np.float32)
    assert large_enough(boxes, np.array([1 / 8, 1 / 2])).tolist() == [True, False]
