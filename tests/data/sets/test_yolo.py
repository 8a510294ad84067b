"""YOLO's folders: fractions become pixels, polygons become masks, and a line that cannot be meant is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layout_folders import picture, text
from resdet.config import load_config
from resdet.data.batches.loader import open_split
from resdet.data.images.decode import image_size, read_image
from resdet.data.sets.opened import open_folder
from resdet.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path_factory.mktemp("cache")))


def folder(root: Path, labels: str, described: str = "train: images\nval: images\nnames: [bee, wasp]\n") -> Path:
    """One image of 40 x 20 pixels with these labels."""
    text(root / "data.yaml", described)
    picture(root / "images/a.jpg")
    text(root / "labels/a.txt", labels)
    return root


def refused(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        _ = open_folder(root, "train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_box_is_its_centre_and_size_as_fractions(tmp_path: Path) -> None:
    dataset = open_folder(folder(tmp_path, "1 0.5 0.5 0.25 0.5\n"), "train")
    assert dataset.boxes.tolist() == [[15, 5, 25, 15]]
    assert (dataset.labels.tolist(), dataset.areas.tolist()) == ([1], [100])
    assert not dataset.segmentations.present().any()


def test_a_polygon_is_a_mask_and_its_box(tmp_path: Path) -> None:
    """The triangle (4, 2), (20, 2), (4, 12): area 16 * 10 / 2."""
    dataset = open_folder(folder(tmp_path, "0 0.1 0.1 0.5 0.1 0.1 0.6\n"), "train")
    assert dataset.boxes.tolist() == [[4, 2, 20, 12]]
    assert dataset.areas.tolist() == pytest.approx([80])
    (polygon,) = dataset.segmentations.polygons(0)
    np.testing.assert_allclose(polygon, [(4, 2), (20, 2), (4, 12)], atol=0.15)
    assert dataset.report.fixed == {}


def test_an_image_without_a_label_file_has_no_objects(tmp_path: Path) -> None:
    root = folder(tmp_path, "0 0.5 0.5 0.5 0.5\n")
    picture(root / "images/b.jpg")
    picture(root / "images/c.jpg")
    text(root / "labels/c.txt", "\n")
    dataset = open_folder(root, "train")
    assert dataset.objects_per_image().tolist() == [1, 0, 0]


BAD = {
    "2 0.5 0.5 0.1 0.1": "class '2' is none of the 2 classes",
    "-1 0.5 0.5 0.1 0.1": "class '-1'",
    "bee 0.5 0.5 0.1 0.1": "class 'bee'",
    "0.5 0.5 0.5 0.1 0.1": "class '0.5'",
    "0 20 10 8 4": "'20' is no fraction of the image between 0 and 1",
    "0 0.5 1.2 0.1 0.1": "'1.2' is no fraction",
    "0 nan 0.5 0.1 0.1": "'nan' is no fraction",
    "0 0.5 inf 0.1 0.1": "'inf' is no fraction",
    "0 0.5 0.5 -0.005 0.1": "the box has the width -0.005",
    "0 0.5 0.5 0.1": "3 numbers behind the class",
    "0 0.5 0.5 0.1 0.1 0.9": "5 numbers behind the class",
    "0 0.1 0.1 0.5 0.1 0.1 0.6 0.3": "7 numbers behind the class; the points of a polygon have two each",
    "0 0.1,0.1 0.5 0.1": "3 numbers",
    "0": "0 numbers",
}


@pytest.mark.parametrize(("line", "problem"), BAD.items())
def test_a_line_that_cannot_be_meant_is_named_with_its_file(tmp_path: Path, line: str, problem: str) -> None:
    message = refused(folder(tmp_path, f"0 0.5 0.5 0.1 0.1\n\n{line}\n"))
    assert message.startswith(f"{tmp_path}/labels/a.txt: line 3: {problem}")


def test_many_such_lines_are_counted(tmp_path: Path) -> None:
    assert "line 1: class '7' is none of the 2 classes of the data set (3 such lines)" in refused(
        folder(tmp_path, "7 0 0 1 1\n7 0 0 1 1 \n9 0 0 0.5 0.5\n0 0.5 0.5 0.5 0.5\n")
    )


def test_what_every_format_mends_and_skips_is_mended_and_skipped(tmp_path: Path) -> None:
    """A box that reaches beyond the image, one without area, and a line written twice."""
    dataset = open_folder(folder(tmp_path, "0 0.9 0.5 0.3 0.5\n1 0.5 0.5 0 0.5\n0 0.9 0.5 0.3 0.5\n"), "train")
    assert dataset.boxes.tolist() == [[30, 5, 40, 15]]
    counts = {reason: note.count for reason, note in dataset.report.skipped.items()}
    assert counts == {"line written twice in a label file": 1, "box without area": 1}
    assert dataset.report.annotations_read == 3 == dataset.report.annotations_kept + sum(counts.values())
    assert {reason: note.count for reason, note in dataset.report.fixed.items()} == {"box clipped to its image": 1}


def test_the_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    """EXIF orientation 6: stored 40 wide, seen 20 wide; fractions are of what is seen."""
    root = folder(tmp_path, "0 0.5 0.25 0.5 0.5\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(root / "images/a.jpg", exif=exif)
    dataset = open_folder(root, "train")
    assert (dataset.widths.tolist(), dataset.heights.tolist()) == ([20], [40])
    assert dataset.boxes.tolist() == [[5, 0, 15, 20]]
    assert read_image(dataset.path(0), 40, 20).shape == (40, 20, 3)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tiff", ".bmp"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_size_in_a_header_is_that_of_the_decoded_image(
    tmp_path: Path, ending: str, orientation: int | None
) -> None:
    exif = Image.Exif()
    if orientation is not None and ending != ".bmp":
        exif[0x0112] = orientation
    Image.new("RGB", (7, 5)).save(tmp_path / f"a{ending}", **({} if ending == ".bmp" else {"exif": exif}))
    assert image_size(tmp_path / f"a{ending}") == read_image(tmp_path / f"a{ending}").shape[:2]


def test_an_image_that_cannot_be_read_is_an_error_or_left_out(tmp_path: Path) -> None:
    root = folder(tmp_path, "0 0.5 0.5 0.5 0.5\n")
    _ = (root / "images/b.jpg").write_bytes(b"no image")
    assert refused(root).startswith(f"{root}/images/b.jpg: is not a readable JPEG")
    skipping = ["data.on_bad_image=skip", f"data.path={root}"]
    with pytest.raises(UserError, match=r"b\.jpg.*data\.on_bad_image=skip"):
        _ = open_split(load_config(overrides=skipping).data, "val")
    tolerant = load_config(overrides=[*skipping, "data.max_bad_fraction=0.5"])
    dataset = open_split(tolerant.data, "val")
    assert len(dataset) == 1
    assert "1 image files that cannot be read are left out" in dataset.report.summary()


DESCRIBED = {
    "train: images\n": "names is 'None'; list the classes",
    "train: images\nnames: bee\n": "names is 'bee'",
    "train: images\nnames: {a: bee}\n": "names is",
    "train: images\nnc: 3\nnames: [bee, wasp]\n": "nc is 3, and names has 2 classes",
    "train: images\nnames: [bee, [wasp]]\n": r"a class is called \['wasp'\]",
    "train: {a: b}\nnames: [bee]\n": "train is",
    "train: pictures\nnames: [bee]\n": "train: 'pictures' is not there in",
    "train: /etc\nnames: [bee]\n": "train: '/etc' is not there in",
    "train: ../../etc\nnames: [bee]\n": "is not there in",
    "train: http://a.b/c\nnames: [bee]\n": "is not there in",
    "names: [bee]\n": "has no train split",
    "train: images\nnames: [bee]\nkpt_shape: 3\n": "kpt_shape is '3'",
    "names: &a [bee]\ntrain: *a\n": "aliases are not allowed",
    "names: [bee\n": "not readable as YAML",
}


@pytest.mark.parametrize(("described", "problem"), DESCRIBED.items())
def test_a_description_that_does_not_fit_is_named(tmp_path: Path, described: str, problem: str) -> None:
    root = folder(tmp_path / "set", "0 0.5 0.5 0.5 0.5\n", described)
    with pytest.raises(UserError, match=problem) as caught:
        _ = open_folder(root, "train")
    assert str(caught.value).startswith(str(root))
    assert "\n" not in str(caught.value)


def test_classes_may_be_a_count_alone_or_numbers_with_gaps(tmp_path: Path) -> None:
    root = folder(tmp_path, "1 0.5 0.5 0.5 0.5\n", "train: images\nval: images\nnc: 2\n")
    assert open_folder(root, "train").class_names == ("class 0", "class 1")
    text(root / "data.yaml", "train: images\nval: images\nnames:\n  1: 2017\n  5: '[red]b[/red]'\n")
    assert open_folder(root, "train").class_names == ("2017", "[red]b[/red]")
    assert open_folder(root, "train").labels.tolist() == [0]


def test_the_numbers_of_poses_are_left_out(tmp_path: Path) -> None:
    described = "train: images\nval: images\nnames: [bee]\nkpt_shape: [2, 3]\n"
    root = folder(tmp_path, "0 0.5 0.5 0.25 0.5 0.1 0.1 2 0.2 0.2 1\n", described)
    assert open_folder(root, "train").boxes.tolist() == [[15, 5, 25, 15]]


def test_several_folders_and_a_list_make_one_split(tmp_path: Path) -> None:
    described = "train: [one/images, more.txt]\nval: one/images\nnames: [bee]\n"
    text(tmp_path / "data.yaml", described)
    text(tmp_path / "more.txt", "./two/images/b.jpg\n/home/me/set/one/images/a.jpg\n")
    for part, name in (("one", "a"), ("two", "b")):
        picture(tmp_path / f"{part}/images/{name}.jpg")
        text(tmp_path / f"{part}/labels/{name}.txt", "0 0.5 0.5 0.5 0.5\n")
    dataset = open_folder(tmp_path, "train")
    assert [dataset.file_names[index] for index in range(len(dataset))] == ["one/images/a.jpg", "two/images/b.jpg"]


def test_a_list_that_names_a_missing_image_is_an_error_with_its_line(tmp_path: Path) -> None:
    root = folder(tmp_path, "0 0.5 0.5 0.5 0.5\n", "train: train.txt\nval: images\nnames: [bee]\n")
    text(root / "train.txt", "images/a.jpg\nimages/z.jpg\n")
    assert f"{root}/train.txt: line 2: 'images/z.jpg' is not there" in refused(root)


def test_a_split_without_any_label_file_is_another_layout(tmp_path: Path) -> None:
    root = folder(tmp_path, "")
    (root / "labels/a.txt").unlink()
    assert "none of the 1 images of train has a label file (first: 'labels/a.txt')" in refused(root)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "0 0.5 0.5 0.5 0.5\n")
    picture(tmp_path / "private/b.jpg")
    (root / "images/b.jpg").symlink_to(tmp_path / "private/b.jpg")
    assert "is a link that leaves" in refused(root)


def test_labels_do_not_come_from_outside_the_folder(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "0 0.5 0.5 0.5 0.5\n")
    text(tmp_path / "private.txt", "secret\n")
    (root / "labels/a.txt").unlink()
    (root / "labels/a.txt").symlink_to(tmp_path / "private.txt")
    message = refused(root)
    assert "secret" not in message
    assert "labels/a.txt: is a link that leaves" in message


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path, "")
    _ = (root / "labels/a.txt").write_bytes(b"\xff\xfe0 0.5")
    assert "labels/a.txt: not a text file in UTF-8" in refused(root)
    _ = (root / "labels/a.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.25 0.5\r\n")
    assert open_folder(root, "train").boxes.tolist() == [[15, 5, 25, 15]]
