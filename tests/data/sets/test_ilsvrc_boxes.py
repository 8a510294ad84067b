"""ILSVRC's xml tracks as data sets: boxes, classes and lists, and what is wrong with them in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from miniature import write_miniature
from resdet.config import DataConfig, load_config
from resdet.data.batches.loader import open_split
from resdet.data.sets.formats import read_content
from resdet.data.sets.ilsvrc_boxes import annotation_file
from resdet.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_miniature(tmp_path, train=1, val=4, size=64)


def data_of(root: Path, name: str) -> DataConfig:
    overrides = [f"data.root={root.parent}", f"data.train.name={name}", f"data.val.name={name}"]
    return load_config(overrides=overrides).data


def xml_of(root: Path, *objects: tuple[str, int, int, int, int]) -> Path:
    """Writes the xml file of the first val image of DET, of 64 x 64 pixels."""
    path = root / "Annotations/DET/val/ILSVRC2012_val_00000001.xml"
    items = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in objects
    )
    _ = path.write_text(f"<annotation><size><width>64</width><height>64</height></size>{items}</annotation>")
    return path


@pytest.mark.parametrize(("name", "images"), [("ilsvrc_loc", 8), ("ilsvrc_det", 8)])
def test_a_known_set_has_the_devkit_s_classes_and_the_images_of_its_lists(root: Path, name: str, images: int) -> None:
    train, val = (open_split(data_of(root, name), split) for split in ("train", "val"))
    assert (len(train), len(val)) == (images, 4)
    assert train.category_ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert train.class_names[2] == "n90000001"  # its number is 3
    assert val.class_names == train.class_names
    assert val.path(0).name == "ILSVRC2012_val_00000001.JPEG"
    assert val.path(0).is_file()


def test_boxes_count_from_0_with_their_last_pixel_and_end_at_the_border(root: Path) -> None:
    _ = xml_of(root, ("n90000003", 3, 4, 12, 23), ("n90000001", 0, 0, 64, 63))
    val = open_split(data_of(root, "ilsvrc_det"), "val")
    first = slice(val.offsets[0], val.offsets[1])
    assert val.boxes[first].tolist() == [[3, 4, 13, 24], [0, 0, 64, 64]]
    assert [val.class_names[label] for label in val.labels[first]] == ["n90000003", "n90000001"]


def test_a_list_of_one_s_own_is_a_set_too(root: Path) -> None:
    """val2, for instance, beside images of the train set: the folder above both, and entries below it."""
    own = root / "ImageSets/DET/val2.txt"
    _ = own.write_text("val/ILSVRC2012_val_00000003 1\ntrain/n90000002/n90000002_1 2\n")
    content = read_content(own, root / "Data/DET")
    assert list(content.file_names) == ["val/ILSVRC2012_val_00000003.JPEG", "train/n90000002/n90000002_1.JPEG"]


def test_it_is_converted_once_and_again_when_a_file_has_changed(root: Path) -> None:
    listed, images = root / "ImageSets/DET/val.txt", root / "Data/DET/val"
    first = annotation_file(listed, images)
    assert annotation_file(listed, images) == first
    assert annotation_file(listed, None) == first  # the folder is called as the list
    _ = xml_of(root, ("n90000003", 3, 4, 12, 23))
    again = annotation_file(listed, images)
    assert again != first
    assert json.loads(again.read_text())["annotations"][0]["bbox"] == [3, 4, 10, 20]


def test_a_mistake_is_one_line_that_names_file_and_remedy(root: Path) -> None:
    listed, images = root / "ImageSets/DET/val.txt", root / "Data/DET/val"
    text = listed.read_text()

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as error:
            _ = annotation_file(listed, images)
        assert "\n" not in str(error.value)

    path = xml_of(root, ("n90000018", 3, 4, 12, 23))
    refused(r"00001.xml: object 1: synset 'n90000018' is none of the 8 of .*map_det.txt; did you mean 'n90000008'")
    _ = xml_of(root, ("n90000003", 13, 4, 12, 23))
    refused(r"bndbox from \(13, 4\) to \(12, 23\) ends before it begins")
    _ = path.write_text("<annotation><size>")
    refused(r"00001.xml: not readable as XML")
    path.unlink()
    refused(r"00001.xml: No such file or directory; add the file, or take its image out of the list")
    _ = xml_of(root)
    for line, message in (
        ("ILSVRC2012_val_00000001 -1\n", r"says of each image whether it shows one class"),
        ("ILSVRC2012_val_00000002 2\n", r"names 'ILSVRC2012_val_00000002' twice"),
        ("../escape 5\n", r"climbs out of the images folder"),
        ("a b c\n", r"line 5 is 'a b c'; expected the name of an image and its number"),
    ):
        _ = listed.write_text(text + line)
        refused(message)
    _ = listed.write_text(text)
    (root / "devkit/data/map_det.txt").unlink()
    refused(r"devkit/data: has none of map_det.txt")
    with pytest.raises(UserError, match=r"elsewhere: is not in .*Data/DET, where the images of .*val.txt lie"):
        _ = annotation_file(listed, root / "elsewhere")
