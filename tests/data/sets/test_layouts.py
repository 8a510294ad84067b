"""A folder alone is enough: every layout gives the same images, boxes and classes, and a val split if it has none."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from layout_folders import (
    NAMES,
    OBJECTS,
    TRAIN,
    VAL,
    WRITERS,
    coco,
    coco_2017,
    picture,
    text,
    voc_xml,
    yolo_lines,
    yolo_ultralytics,
)  # fmt: skip
from resdet.coco.annotation_file import AnnotationFile, read_annotation_file
from resdet.config import DataConfig, load_config
from resdet.data.batches.loader import open_split
from resdet.data.sets import cache, coco_folder
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.held_out import position
from resdet.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path_factory.mktemp("cache")))


def data(*overrides: str) -> DataConfig:
    return load_config(overrides=[f"data.{override}" for override in overrides]).data


def opened(path: Path, split: str, *overrides: str) -> CocoDataset:
    return open_split(data(f"path={path}", *overrides), split)


def objects(dataset: CocoDataset) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """By the stem of the image: the class and the corners of each object, rounded to 0.01 pixels."""
    return {
        Path(dataset.file_names[image]).stem: [
            (dataset.class_names[dataset.labels[row]], tuple(round(float(side), 2) for side in dataset.boxes[row]))
            for row in range(*dataset.rows(image).indices(len(dataset.boxes)))
        ]
        for image in range(len(dataset))
    }


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_every_layout_gives_the_same_objects(writer: Callable[[Path], None], tmp_path: Path) -> None:
    writer(tmp_path)
    for split, names in (("train", TRAIN), ("val", VAL)):
        dataset = opened(tmp_path, split)
        assert dataset.class_names == NAMES
        assert objects(dataset) == {stem: OBJECTS[stem] for stem in names}
        assert (dataset.widths.tolist(), dataset.heights.tolist()) == ([40] * len(names), [20] * len(names))
        assert all(dataset.path(index).is_file() for index in range(len(dataset)))
        assert f"read as {writer.__name__.partition('_')[0]}" in dataset.report.summary()
        assert (dataset.report.skipped, dataset.report.fixed) == ({}, {})


def test_a_coco_file_of_a_folder_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images are found by names that are looked for in the text."""
    coco_2017(tmp_path)
    read: list[Path] = []

    def counted(path: Path) -> AnnotationFile:
        read.append(path)
        return read_annotation_file(path)

    monkeypatch.setattr(cache, "read_annotation_file", counted)
    dataset = opened(tmp_path, "train")
    assert (read, dataset.images) == ([tmp_path / "annotations/instances_train2017.json"], tmp_path / "train2017")


@pytest.mark.parametrize("block", [7, 2**20])
def test_names_of_images_are_found_wherever_they_are(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_folder, "BEGINNING", block)
    file = tmp_path / "a.json"
    url = "http://images.cocodataset.org/train2017/1.jpg"
    for images, names in (
        (
            [{"id": 1, "file_name": 'a"\u00e9/1.jpg', "coco_url": url}, {"id": 2, "file_name": "2.jpg"}],
            ['a"\u00e9/1.jpg', "2.jpg"],
        ),
        ([{"id": 1, "coco_url": url}], ["train2017/1.jpg"]),
        ([{"id": 1}], []),
    ):
        text(file, json.dumps({"annotations": [{"id": 1, "bbox": [1, 2, 3, 4]}] * 9, "images": images}))
        assert coco_folder._first_names(file) == names
    assert coco_folder._first_names(tmp_path / "nowhere.json") == []


def plain_yolo(folder: Path, count: int, names: str = "[bee, wasp]") -> None:
    text(folder / "data.yaml", f"train: images\nnames: {names}\n")
    for number in range(count):
        picture(folder / f"images/{number}.jpg")
        text(folder / f"labels/{number}.txt", yolo_lines("a"))


def names_of(dataset: CocoDataset) -> set[str]:
    return {dataset.file_names[index] for index in range(len(dataset))}


def test_without_a_val_split_images_are_held_out_by_a_hash_of_their_names(tmp_path: Path) -> None:
    plain_yolo(tmp_path, 60)
    train, val = opened(tmp_path, "train"), opened(tmp_path, "val")
    held = {f"images/{n}.jpg" for n in range(60) if position(f"images/{n}.jpg", 0) < 0.2}
    assert names_of(val) == held
    assert names_of(train) == {f"images/{n}.jpg" for n in range(60)} - held
    assert f"{len(held)} of 60 images are held out as val" in train.report.summary()
    assert train.report.annotations_read == 2 * len(train)


def test_an_image_stays_in_its_split_when_others_come(tmp_path: Path) -> None:
    plain_yolo(tmp_path, 40)
    before = names_of(opened(tmp_path, "val"))
    plain_yolo(tmp_path, 60)
    after = names_of(opened(tmp_path, "val"))
    assert before == {name for name in after if int(Path(name).stem) < 40}


def test_another_seed_and_another_share_hold_out_others(tmp_path: Path) -> None:
    plain_yolo(tmp_path, 60)
    first, second = (names_of(opened(tmp_path, "val", f"val_seed={seed}")) for seed in (0, 1))
    assert first != second
    assert first < names_of(opened(tmp_path, "val", "val_share=0.5"))


def test_two_images_are_one_for_each_split(tmp_path: Path) -> None:
    plain_yolo(tmp_path, 2)
    assert [len(opened(tmp_path, split)) for split in ("train", "val")] == [1, 1]


def test_copies_that_roboflow_makes_of_an_image_share_a_split() -> None:
    assert position("a_jpg.rf.0123456789abcdef.jpg", 0) == position("a_jpg.rf.fedcba9876543210.jpg", 0)
    assert position("a/x.jpg", 0) != position("b/x.jpg", 0)


def mistake(path: Path, *overrides: str, split: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        _ = opened(path, split, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    text(tmp_path / "notes.txt", "nothing")
    message = mistake(tmp_path)
    assert message.startswith(f"{tmp_path}: of no known format; looked for coco: annotations/*.json")
    assert all(f"{name}: " in message for name in ("coco", "yolo", "voc", "cvat", "csv"))
    assert "no such folder" in mistake(tmp_path / "gone")


def test_a_folder_of_two_formats_needs_a_choice(tmp_path: Path) -> None:
    coco_2017(tmp_path)
    yolo_ultralytics(tmp_path)
    message = mistake(tmp_path)
    assert "may be coco (" in message
    options = "resdet new: --format coco; check-data, convert-data: --from coco"
    assert message.endswith(f"choose with data.format=coco ({options})")
    for name in ("coco", "yolo"):
        assert f"read as {name}" in opened(tmp_path, "train", f"format={name}").report.summary()
    assert re.search(r"data.format=voc, and there is no Annotations/\*.xml", mistake(tmp_path, "format=voc"))
    assert "did you mean 'yolo'" in mistake(tmp_path, "format=yol")


def test_figures_of_a_training_beside_the_data_are_no_table_of_boxes(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path)
    text(tmp_path / "results.csv", "epoch,time,train/box_loss\n1,2.5,0.3\n")
    assert len(opened(tmp_path, "train")) == len(TRAIN)


def test_two_files_of_one_split_are_named(tmp_path: Path) -> None:
    coco_2017(tmp_path)
    text(tmp_path / "annotations/instances_train2014.json", "{}")
    assert "'instances_train2014.json' and 'instances_train2017.json' are both train" in mistake(tmp_path)


def test_images_that_are_nowhere_are_said_with_the_places(tmp_path: Path) -> None:
    coco_2017(tmp_path)
    _ = (tmp_path / "train2017").rename(tmp_path / "elsewhere")
    assert "its images (first: 'a.jpg') are in none of" in mistake(tmp_path)


def test_a_folder_and_files_contradict_each_other(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path)
    message = mistake(tmp_path, "val.annotations=a.json", "val.images=b")
    assert "data.val.annotations=null data.val.images=null" in message


def test_a_file_beside_the_images_is_a_split_too(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path)
    assert len(opened(tmp_path / "data.yaml", "val")) == len(VAL)


def test_a_coco_file_of_no_split_is_divided(tmp_path: Path) -> None:
    """CVAT's COCO export: annotations/instances_default.json, images in images/default."""
    text(tmp_path / "annotations/instances_default.json", coco(tuple(OBJECTS)))
    for stem in OBJECTS:
        picture(tmp_path / f"images/default/{stem}.jpg")
    train, val = opened(tmp_path, "train", "val_share=0.5"), opened(tmp_path, "val", "val_share=0.5")
    assert objects(train) | objects(val) == dict(OBJECTS)
    assert not names_of(train) & names_of(val)
    assert train.category_ids.tolist() == val.category_ids.tolist()


def test_xml_files_without_lists_are_divided(tmp_path: Path) -> None:
    for stem in OBJECTS:
        text(tmp_path / f"annotations/{stem}.xml", voc_xml(stem))
        picture(tmp_path / f"images/{stem}.jpg")
    train, val = opened(tmp_path, "train", "val_share=0.5"), opened(tmp_path, "val", "val_share=0.5")
    assert objects(train) | objects(val) == dict(OBJECTS)
    assert names_of(train) | names_of(val) == {f"images/{stem}.jpg" for stem in OBJECTS}


def test_the_content_of_a_folder_is_parsed_again_after_a_change(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path)
    assert len(opened(tmp_path, "val").boxes) == 1
    text(tmp_path / "labels/val/b.txt", "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.25 0.25\n")
    assert len(opened(tmp_path, "val").boxes) == 2


def test_category_ids_are_those_of_the_file(tmp_path: Path) -> None:
    coco_2017(tmp_path)
    content = json.loads((tmp_path / "annotations/instances_train2017.json").read_text())
    assert opened(tmp_path, "train").category_ids.tolist() == [c["id"] for c in content["categories"]]


PIECES = (
    b"nan", b"-1", b"1e999", b"\0", b"[", b"{", b":", b"\n", b",", b"<", b"../", b"/", b"\xff", b'"', b"9" * 30, b"&a;",
)  # fmt: skip


def damaged(content: bytes, rng: random.Random) -> bytes:
    """With one byte replaced, some dropped, some doubled or a piece inserted."""
    at = rng.randrange(len(content) + 1)
    end = at + rng.randint(1, 8)
    return rng.choice(
        (
            content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
            content[:at] + content[end:],
            content[:end] + content[at:],
            content[:at] + rng.choice(PIECES) + content[at:],
        )
    )


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_whatever_stands_in_a_file_is_read_or_named_in_one_line(writer: Callable[[Path], None], tmp_path: Path) -> None:
    rng = random.Random(0)
    writer(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".jpg")
    outcomes: set[str] = set()
    for _ in range(40):
        file = rng.choice(files)
        content = file.read_bytes()
        _ = file.write_bytes(damaged(content, rng))
        try:
            for split in ("train", "val"):
                _ = opened(tmp_path, split)
            outcomes.add("read")
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017  # many files are tried in one test
            outcomes.add("named")
        _ = file.write_bytes(content)
    assert outcomes == {"read", "named"}
