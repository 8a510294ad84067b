"""Data sets that are refused."""

import json
from pathlib import Path

import pytest

from resdet.cli.main import main
from resdet.config import Config
from resdet.engine.task.detection import check_categories
from resdet.errors import UserError


def test_train_and_val_must_list_the_same_categories(tmp_path: Path, nano: Config):
    from dataclasses import replace

    from resdet.data.batches.loader import open_split

    train_set = open_split(nano.data, "train")
    check_categories(train_set, train_set)
    other = replace(train_set, class_names=(*train_set.class_names[:-1], "zebra"))
    with pytest.raises(UserError, match=r"its categories differ .*train and val need the same list"):
        check_categories(train_set, other)


def test_strict_makes_an_error_of_what_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    boxes = [[1, 1, 10, 10], [5, 5, 0, 5]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for i, box in enumerate(boxes, start=1)
        ],
    }
    _ = (tmp_path / "a.json").write_text(json.dumps(content))
    command = ["check-data", str(tmp_path / "a.json"), str(tmp_path)]
    assert main(command) == 0
    _ = capsys.readouterr()
    assert main([*command, "--strict"]) == 2
    assert "mend the annotations, or leave out --strict" in capsys.readouterr().err
