"""Pascal VOC's layout: the same objects as in a COCO file, difficult ones left out of training, hostile xml refused."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from resdet.coco.class_names import VOC_CLASSES
from resdet.config import Config, load_config
from resdet.data.batches.loader import open_split, training_batches
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.formats import read_set
from resdet.data.sets.voc import annotation_file, convert
from resdet.errors import UserError

BCCD = Path(__file__).parents[3].parent / "shared" / "data" / "bccd"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RESDET_CACHE", str(cache))
    return cache


def thing(name: str, box: tuple[float, float, float, float], more: str = "") -> str:
    sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


def picture(root: Path, name: str, *objects: str, size: tuple[int, int] = (40, 30), ending: str = "jpg") -> Path:
    """An image of (width, height) and its xml file, which is returned."""
    width, height = size
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(root / f"JPEGImages/{name}.{ending}"), np.zeros((height, width, 3), np.uint8))
    path = root / f"Annotations/{name}.xml"
    frame = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    _ = path.write_text(f"<annotation><filename>{name}.jpg</filename>{frame}{''.join(objects)}</annotation>")
    return path


def listed(root: Path, split: str, *names: str) -> Path:
    path = root / f"ImageSets/Main/{split}.txt"
    _ = path.write_text("".join(f"{name}\n" for name in names))
    return path


def read(path: Path, images: Path) -> CocoDataset:
    return read_set(annotation_file(path, images), images)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two images: a dog and a difficult cat; a person whose head is a part."""
    head = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    _ = picture(
        tmp_path, "000012", thing("dog", (3, 5, 12, 14)), thing("cat", (1, 1, 40, 30), "<difficult>1</difficult>")
    )
    _ = picture(tmp_path, "2007_000027", thing("person", (11, 11, 20.5, 30), head), ending="png")
    _ = listed(tmp_path, "train", "000012", "2007_000027")
    _ = listed(tmp_path, "val", "2007_000027")
    return tmp_path


def test_boxes_count_their_last_pixel(small: Path) -> None:
    """Pixels 3 to 12 of a row, counted from 1, are the ten from 2 up to 12."""
    dataset = read(small / "ImageSets/Main/train.txt", small / "JPEGImages")
    assert dataset.class_names == ("cat", "dog", "person")
    assert [dataset.file_names[i] for i in range(2)] == ["000012.jpg", "2007_000027.png"]
    assert dataset.boxes.tolist() == [[2, 4, 12, 14], [0, 0, 40, 30], [10, 10, 20.5, 30]]
    assert dataset.labels.tolist() == [1, 0, 2]
    assert dataset.areas.tolist() == [100, 1200, 10.5 * 20]
    assert (dataset.widths.tolist(), dataset.heights.tolist()) == ([40, 40], [30, 30])


def test_difficult_objects_are_not_trained_on_and_counted(small: Path) -> None:
    dataset = read(small / "ImageSets/Main/train.txt", small / "JPEGImages")
    assert dataset.crowd.tolist() == [False, True, False]
    report = dataset.report
    assert (report.objects, report.crowd, report.difficult) == (2, 0, 1)
    assert report.class_counts == {"cat": 0, "dog": 1, "person": 1}
    assert "1 difficult" in report.summary()


def test_every_split_has_the_classes_of_the_whole_folder(small: Path) -> None:
    val = read(small / "ImageSets/Main/val.txt", small / "JPEGImages")
    assert val.class_names == ("cat", "dog", "person")
    assert val.labels.tolist() == [2]


def voc_config(*overrides: str) -> Config:
    return load_config(overrides=["data.workers=0", "train.batch_size=2", *overrides])


def test_a_config_names_a_split_by_its_list(small: Path) -> None:
    files = [f"data.{split}.annotations={small}/ImageSets/Main/{split}.txt" for split in ("train", "val")]
    folders = [f"data.{split}.images={small}/JPEGImages" for split in ("train", "val")]
    config = voc_config(*files, *folders, "data.augment.short_side=[30]", "data.augment.flip=0")
    assert len(open_split(config.data, "val")) == 1
    dataset = open_split(config.data, "train")
    (batch,) = islice(training_batches(dataset, config, start_step=0, rank=0, world_size=1), 1)
    targets = batch.batch.targets
    assert targets is not None
    assert int(targets.valid.sum()) == 3
    assert targets.labels[targets.crowd & targets.valid].tolist() == [0]  # the difficult cat is a region to ignore


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """datasets/VOCdevkit with both years, an image in each list."""
    for year, splits in (("2007", ("trainval", "test")), ("2012", ("train", "val", "trainval"))):
        root = tmp_path / "VOCdevkit" / f"VOC{year}"
        for split in splits:
            _ = picture(root, f"{year}_{split}", thing("sofa", (1, 1, 10, 10)))
            _ = listed(root, split, f"{year}_{split}")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "split", "files"),
    [
        ("voc2007", "train", ["VOC2007/JPEGImages/2007_trainval.jpg"]),
        ("voc2007", "val", ["VOC2007/JPEGImages/2007_test.jpg"]),
        ("voc2012", "train", ["VOC2012/JPEGImages/2012_train.jpg"]),
        ("voc2012", "val", ["VOC2012/JPEGImages/2012_val.jpg"]),
        ("voc0712", "train", ["VOC2007/JPEGImages/2007_trainval.jpg", "VOC2012/JPEGImages/2012_trainval.jpg"]),
        ("voc0712", "val", ["VOC2007/JPEGImages/2007_test.jpg"]),
        (
            "voc0712plus",
            "train",
            [f"VOC{year}/JPEGImages/{year}_{part}.jpg" for year, part in
             (("2007", "trainval"), ("2007", "test"), ("2012", "trainval"))],
        ),
    ],
)  # fmt: skip
def test_known_sets_follow_from_their_name(devkit: Path, name: str, split: str, files: list[str]) -> None:
    config = voc_config(f"data.root={devkit}", f"data.{split}.name={name}")
    dataset = open_split(config.data, split)
    assert [dataset.file_names[i] for i in range(len(dataset))] == files
    assert dataset.class_names == VOC_CLASSES
    assert {dataset.class_names[label] for label in dataset.labels} == {"sofa"}
    assert dataset.path(0).is_file()


def test_what_a_known_set_lacks_is_said(devkit: Path) -> None:
    data = voc_config(f"data.root={devkit}", "data.val.name=voc0712plus", "data.train.name=voc0713").data
    with pytest.raises(UserError, match=r"test images are not public.*data.val.name=voc2012"):
        _ = open_split(data, "val")
    with pytest.raises(UserError, match="did you mean 'voc0712'"):
        _ = open_split(data, "train")
    (devkit / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").unlink()
    data = voc_config(f"data.root={devkit}", "data.val.name=voc2007").data
    with pytest.raises(UserError, match=r"test.txt of data.val.name=voc2007 is missing; .*datasets/README.md"):
        _ = open_split(data, "val")


def test_a_class_that_is_not_vocs_is_named(devkit: Path) -> None:
    _ = picture(devkit / "VOCdevkit/VOC2007", "2007_test", thing("kite", (1, 1, 9, 9)))
    data = voc_config(f"data.root={devkit}", "data.val.name=voc2007").data
    with pytest.raises(UserError, match=r"2007_test.xml: object 1: class 'kite' is none of VOC's 20"):
        _ = open_split(data, "val")


def test_the_conversion_is_kept_and_made_again_when_a_file_changes(small: Path, own_cache: Path) -> None:
    train, images = small / "ImageSets/Main/train.txt", small / "JPEGImages"
    first = annotation_file(train, images)
    assert first.parent == own_cache
    written = first.stat().st_mtime_ns
    assert annotation_file(train, images) == first
    assert first.stat().st_mtime_ns == written
    path = small / "Annotations/000012.xml"
    _ = path.write_text(path.read_text().replace("<xmin>3</xmin>", "<xmin>4</xmin>"))
    second = annotation_file(train, images)
    assert second != first
    assert json.loads(second.read_text())["annotations"][0]["bbox"] == [3, 4, 9, 10]
    os.utime(train, ns=(1, 1))
    assert annotation_file(train, images) != second


def test_a_json_file_is_left_as_it_is(tmp_path: Path) -> None:
    assert annotation_file(tmp_path / "a.json", tmp_path) == tmp_path / "a.json"


def test_images_may_lie_elsewhere_and_below_other_folders(small: Path) -> None:
    _ = (small / "JPEGImages").rename(small / "pictures")
    train = small / "ImageSets/Main/train.txt"
    assert read(train, small / "pictures").file_names[1] == "2007_000027.png"
    _ = (small / "pictures").rename(small / "JPEGImages")
    assert read(train, small).file_names[1] == "JPEGImages/2007_000027.png"


MALFORMED = [
    ("<annotation><size>", "not readable as XML"),
    ("", "not readable as XML"),
    ("<html></html>", "begins with <html>; expected a VOC <annotation>"),
    ("<annotation></annotation>", "has no size"),
    ("<annotation><size><width>0</width><height>0</height></size></annotation>", "size: 0x0 pixels; write those of"),
    ("<annotation><size><width>9</width></size></annotation>", "size: has no height"),
    (
        "<annotation><size><width>9</width><height>x</height></size></annotation>",
        "size: height is 'x', no number",
    ),
    ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "declares a document type"),
    ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type"),
]
SIZE = "<size><width>9</width><height>9</height></size>"
OBJECTS = [
    ("<object><name>dog</name></object>", "object 1: has no bndbox"),
    ("<object><bndbox/></object>", "object 1: has no name"),
    (thing("dog", (1, 1, 5, float("nan"))), "object 1: ymax is 'nan', no number"),
    (thing("dog", (1, 1, 1e308, 1e308)), r"object 1: xmax is '1e\+308', no number of at most 1e\+07"),
    (
        thing("dog", (1, 1, 5, 9)) + thing("dog", (6, 1, 5, 9)),
        r"object 2: bndbox from \(6, 1\) to \(5, 9\) ends before",
    ),
    (thing("dog", (1, 1, 5, 9), "<difficult>perhaps</difficult>"), "object 1: difficult is 'perhaps', no number"),
]


@pytest.mark.parametrize(
    ("text", "message"),
    [*MALFORMED, *((f"<annotation>{SIZE}{objects}</annotation>", message) for objects, message in OBJECTS)],
)
def test_a_malformed_file_is_named_with_what_is_wrong(small: Path, text: str, message: str, own_cache: Path) -> None:
    _ = (small / "Annotations/000012.xml").write_text(text)
    with pytest.raises(UserError, match=f"000012.xml.*{message}") as caught:
        _ = convert([small / "ImageSets/Main/train.txt"], small / "JPEGImages", classes=("dog", "person"))
    assert "\n" not in str(caught.value)
    assert list(own_cache.iterdir()) == []


def test_a_file_too_large_for_an_annotation_is_not_parsed(small: Path) -> None:
    _ = (small / "Annotations/000012.xml").write_bytes(b" " * (4 * 2**20 + 1))
    with pytest.raises(UserError, match="at most 4194304"):
        _ = annotation_file(small / "ImageSets/Main/train.txt")


def test_whatever_stands_in_an_xml_file_is_read_or_named(small: Path) -> None:
    """Bytes replaced, dropped and doubled: objects or one line, never another exception."""
    path, train = small / "Annotations/000012.xml", small / "ImageSets/Main/train.txt"
    valid, random, messages = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(150):
        data = bytearray(valid)
        start, length = random.integers(len(data)), random.integers(1, 20)
        piece = bytes(data[start : start + length])
        data[start : start + length] = [b"", piece * 2, random.bytes(2), b"-1e999", b"<a>", b"&lt;"][random.integers(6)]
        _ = path.write_bytes(bytes(data))
        try:
            _ = read_set(annotation_file(train), small / "JPEGImages")
        except UserError as error:
            messages.append(str(error))
    assert 20 < len(messages) < 150
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "is empty"),
        (("000012 -1", "2007_000027  1"), r"says of each image whether it shows one class \('000012 -1'\).*train.txt"),
        (("000012", "000012"), r"names '000012' twice \(such names: 1\)"),
        (("../../secret",), "climbs out"),
        (("/etc/passwd",), "absolute path"),
        (("absent",), r"absent.xml: No such file.*names 'absent'"),
    ],
)
def test_a_list_that_is_none_is_refused(small: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ = annotation_file(listed(small, "train", *lines), small / "JPEGImages")


def test_what_is_not_there_is_said(tmp_path: Path, small: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        _ = annotation_file(small / "ImageSets/Main/nothing.txt")
    (tmp_path / "notes").mkdir()
    _ = (tmp_path / "notes/a.txt").write_text("a")
    with pytest.raises(UserError, match=r"is no split of a VOC data set.*Annotations is missing"):
        _ = annotation_file(tmp_path / "notes/a.txt")
    with pytest.raises(UserError, match="is no folder of images"):
        _ = annotation_file(small / "ImageSets/Main/train.txt", tmp_path / "elsewhere")


@pytest.mark.realdata
@pytest.mark.skipif(not BCCD.exists(), reason="needs ../shared/data/bccd")
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_both_layouts_of_bccd_hold_the_same_objects(split: str) -> None:
    images = BCCD / "JPEGImages"
    voc = read(BCCD / f"ImageSets/Main/{split}.txt", images)
    coco = read_set(BCCD / f"annotations/instances_{split}.json", images)
    assert set(voc.class_names) == set(coco.class_names)
    assert objects(voc) == objects(coco)


def objects(dataset: CocoDataset) -> dict[str, list[tuple[str, list[float]]]]:
    """Class and box of every object, by file name."""
    return {
        dataset.file_names[i]: sorted(
            (dataset.class_names[label], box)
            for label, box in zip(
                dataset.labels[dataset.rows(i)].tolist(), dataset.boxes[dataset.rows(i)].tolist(), strict=True
            )
        )
        for i in range(len(dataset))
    }
