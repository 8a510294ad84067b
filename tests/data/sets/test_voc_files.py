"""Which file is the image of an xml file: its ending, its name and the xml's filename decide; nothing is guessed."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from resdet.data.sets.formats import read_set
from resdet.data.sets.voc import annotation_file
from resdet.data.sets.voc_files import BY_ENTRY
from resdet.errors import UserError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "grün") for form in ("NFC", "NFD"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path_factory.mktemp("cache")))


def touched(path: Path) -> Path:
    """An empty file: what is in an image is not looked at here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def annotated(root: Path, entry: str, filename: str | None, *, name: str = "dog", ending: str = "xml") -> Path:
    path = touched(root / f"Annotations/{entry}.{ending}")
    said = "" if filename is None else f"<filename>{filename}</filename>"
    size = "<size><width>9</width><height>8</height></size>"
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    _ = path.write_text(f"<annotation>{said}{size}<object><name>{name}</name>{box}</object></annotation>", "utf-8")
    return path


def listed(root: Path, *entries: str) -> Path:
    path = touched(root / "ImageSets/Main/train.txt")
    _ = path.write_text("\n".join(entries) + "\n", "utf-8")
    return path


def chosen(root: Path, filename: str | None, files: Sequence[str], entry: str = "a") -> str:
    """The image of one entry beside these files."""
    (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
    for file in files:
        _ = touched(root / "JPEGImages" / file)
    _ = annotated(root, entry, filename)
    return json.loads(annotation_file(listed(root, entry)).read_text())["images"][0]["file_name"]


@pytest.mark.parametrize(
    ("filename", "files", "image"),
    [
        ("a.jpg", ["a.jpg", "a.png"], "a.jpg"),
        ("a.png", ["a.jpg", "a.png"], "a.png"),
        ("a.jpg", ["a.jpg", "a.jpg~", "a.jpg.bak", "._a.jpg", ".a.jpg", "a.json", "a.txt", "a.xml", "a"], "a.jpg"),
        (None, ["a.jpg", "a.json", "a.txt", "a.jpg.xml"], "a.jpg"),
        ("a", ["a.png"], "a.png"),  # no ending
        ("a.JPG", ["a.jpg"], "a.jpg"),
        ("a.jpg", ["a.JPG"], "a.JPG"),
        ("a.jpg", ["a.JPG", "a.jpg"], "a.jpg"),
        ("/home/me/old folder/a.jpg", ["a.jpg"], "a.jpg"),
        (r"C:\Users\me\a.jpg", ["a.jpg"], "a.jpg"),
        ("a.jpg", ["a.tif"], "a.tif"),  # converted since
        ("nonsense.jpg", ["a.jpg"], "a.jpg"),
        ("IMG_1.jpg", ["IMG_1.jpg"], "IMG_1.jpg"),  # only the filename says which
        ("sub/a.jpg", ["sub/a.jpg", "other/a.jpg"], "sub/a.jpg"),
        ("../a.jpg", ["b.jpg"], "a.jpg"),  # not there: what ought to be there, inside the folder
        ("a.png", ["b.jpg"], "a.png"),
        (None, [], "a.jpg"),
        (COMPOSED + ".jpg", [DECOMPOSED + ".jpg"], DECOMPOSED + ".jpg"),
    ],
)
def test_the_image_of_an_xml_file(tmp_path: Path, filename: str | None, files: list[str], image: str) -> None:
    assert chosen(tmp_path, filename, files) == image


@pytest.mark.parametrize(
    "entry",
    [
        "sub/a",
        "deep/er/a",
        "IMG 1",
        "a b  c",
        "%d%s",
        "#1",
        "-x",
        "--help",
        "'q\"q",
        "猫 1",
        "🐈",
        "a.b",
        "[red]",
        "a=b",
    ],
)
def test_entries_may_be_called_anything_and_lie_in_subfolders(tmp_path: Path, entry: str) -> None:
    flat = Path(entry).name
    assert chosen(tmp_path, f"{flat}.jpg", [f"{entry}.jpg", "b.jpg"], entry) == f"{entry}.jpg"
    dataset = read_set(tmp_path / "ImageSets/Main/train.txt", tmp_path / "JPEGImages")
    assert (dataset.file_names[0], dataset.report.fixed) == (f"{entry}.jpg", {})
    assert dataset.path(0).is_file()


def test_an_entry_in_a_subfolder_has_the_image_of_its_own_folder(tmp_path: Path) -> None:
    """Its neighbours of the same name have theirs."""
    for folder in ("", "x/", "y/"):
        _ = touched(tmp_path / f"JPEGImages/{folder}a.jpg")
        _ = annotated(tmp_path, f"{folder}a", "a.jpg", name=f"class {folder}")
    path = listed(tmp_path, "y/a", "a", r"x\a", "./b")
    _ = touched(tmp_path / "JPEGImages/b.jpg"), annotated(tmp_path, "b", "b.jpg")
    dataset = read_set(path, tmp_path / "JPEGImages")
    assert [dataset.file_names[index] for index in range(4)] == ["y/a.jpg", "a.jpg", "x/a.jpg", "b.jpg"]
    assert [dataset.class_names[label] for label in dataset.labels] == ["class y/", "class", "class x/", "dog"]


def test_a_missing_subfolder_is_not_replaced_by_another(tmp_path: Path) -> None:
    assert chosen(tmp_path, "a.jpg", ["a.jpg"], "sub/a") == "sub/a.jpg"
    with pytest.raises(UserError, match=r"1 of 1 image files .* are missing .*'sub/a.jpg'"):
        _ = read_set(tmp_path / "ImageSets/Main/train.txt", tmp_path / "JPEGImages")


@pytest.mark.parametrize(
    ("filename", "files", "message"),
    [
        (None, ["a.jpg", "a.png"], "'a.jpg' and 'a.png' may both be the image of 'a'; write the right one as filename"),
        ("a", ["a.jpg", "a.png"], "'a.jpg' and 'a.png' may both"),
        ("a.bmp", ["a.jpg", "a.png"], "'a.jpg' and 'a.png' may both"),
        ("a.Jpg", ["a.jpg", "a.JPG"], "'a.JPG' and 'a.jpg' may both"),
        ("b.jpg", ["a.jpg", "b.jpg"], "filename is 'b.jpg', and beside 'b.jpg' there is 'a.jpg'"),
    ],
)
def test_what_nothing_decides_names_both(tmp_path: Path, filename: str | None, files: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _ = chosen(tmp_path, filename, files)
    assert "a.xml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_spellings_of_one_name_are_two_entries(tmp_path: Path) -> None:
    for name in (COMPOSED, DECOMPOSED):
        _ = touched(tmp_path / f"JPEGImages/{name}.jpg")
        _ = annotated(tmp_path, name, f"{name}.jpg")
    dataset = read_set(listed(tmp_path, COMPOSED, DECOMPOSED), tmp_path / "JPEGImages")
    assert [dataset.file_names[0], dataset.file_names[1]] == [f"{COMPOSED}.jpg", f"{DECOMPOSED}.jpg"]


def test_a_list_written_on_another_system_finds_its_files(tmp_path: Path) -> None:
    _ = touched(tmp_path / f"JPEGImages/{DECOMPOSED}.JPEG")
    _ = annotated(tmp_path, DECOMPOSED, None, ending="XML")
    dataset = read_set(listed(tmp_path, COMPOSED), tmp_path / "JPEGImages")
    assert dataset.file_names[0] == f"{DECOMPOSED}.JPEG"


def test_two_xml_files_of_one_entry_or_one_image_are_named(tmp_path: Path) -> None:
    _ = touched(tmp_path / "JPEGImages/a.jpg")
    _ = annotated(tmp_path, "a", "a.jpg"), annotated(tmp_path, "b", "a.jpg")
    with pytest.raises(UserError, match=r"b.xml: its image is 'a.jpg', as is that of .*a.xml"):
        _ = annotation_file(listed(tmp_path, "a", "b"))
    _ = annotated(tmp_path, "a", "a.jpg", ending="XML")
    with pytest.raises(UserError, match=r"'a.XML' and 'a.xml' are both the annotations of 'a'"):
        _ = annotation_file(listed(tmp_path, "a"))


def test_filenames_that_are_overruled_are_counted_in_the_report(tmp_path: Path) -> None:
    for entry, filename in (("a", "nonsense.jpg"), ("b", "b.png"), ("c", "c.jpg"), ("d", None), ("e", "Untitled")):
        _ = touched(tmp_path / f"JPEGImages/{entry}.jpg")
        _ = annotated(tmp_path, entry, filename)
    for _ in range(2):  # converted, and then read from the cache
        report = read_set(listed(tmp_path, *"abcde"), tmp_path / "JPEGImages").report
        assert report.fixed[BY_ENTRY].count == 2
        assert f"mended 2 ({BY_ENTRY})" in report.summary()


@pytest.mark.parametrize("ending", [" -1", "  1", " 0", "\t1"])
def test_a_list_of_one_class_is_recognized_as_a_whole(tmp_path: Path, ending: str) -> None:
    for entry in ("000012", "000017"):
        _ = touched(tmp_path / f"JPEGImages/{entry}.jpg")
        _ = annotated(tmp_path, entry, f"{entry}.jpg")
    with pytest.raises(
        UserError, match=r"whether it shows one class .*; name a list of whole images such as train.txt"
    ):
        _ = annotation_file(listed(tmp_path, f"000012{ending}", "000017 -1"))


def test_names_that_look_like_a_list_of_one_class_are_names_where_their_xml_files_are(tmp_path: Path) -> None:
    entries = ["IMG 1", "IMG 0", "IMG -1"]
    for entry in entries:
        _ = touched(tmp_path / f"JPEGImages/{entry}.jpg")
        _ = annotated(tmp_path, entry, f"{entry}.jpg")
    dataset = read_set(listed(tmp_path, *entries), tmp_path / "JPEGImages")
    assert [dataset.file_names[index] for index in range(3)] == [f"{entry}.jpg" for entry in entries]
    with pytest.raises(UserError, match=r"IMG 9.xml: No such file"):
        _ = annotation_file(listed(tmp_path, *entries, "IMG 9"))


def test_an_entry_with_an_ending_is_told_to_leave_it_out(tmp_path: Path) -> None:
    _ = annotated(tmp_path, "a", "a.jpg"), touched(tmp_path / "JPEGImages/a.jpg")
    with pytest.raises(UserError, match=r"names 'a.jpg'; write it without its ending"):
        _ = annotation_file(listed(tmp_path, "a.jpg"))


def test_classes_come_from_all_subfolders_and_white_space_is_not_part_of_a_name(tmp_path: Path) -> None:
    _ = touched(tmp_path / "JPEGImages/a.jpg")
    _ = annotated(tmp_path, "a", "a.jpg", name="\n  traffic\n  light ")
    _ = annotated(tmp_path, "sub/b", "b.jpg", name="traffic light")
    _ = annotated(tmp_path, "sub/deeper/c", "c.jpg", name="zebra")
    _ = touched(tmp_path / "Annotations/._a.xml")  # a Mac's, no annotation
    (tmp_path / "Annotations/circle").symlink_to(tmp_path / "Annotations")
    assert read_set(listed(tmp_path, "a"), tmp_path / "JPEGImages").class_names == ("traffic light", "zebra")


def test_the_conversion_is_made_again_when_a_subfolders_files_change(tmp_path: Path) -> None:
    xml = annotated(tmp_path, "sub/a", None)
    image = touched(tmp_path / "JPEGImages/sub/a.jpg")
    path = listed(tmp_path, "sub/a")
    first = annotation_file(path)
    assert annotation_file(path) == first
    _ = image.rename(image.with_suffix(".png"))
    second = annotation_file(path)
    assert json.loads(second.read_text())["images"][0]["file_name"] == "sub/a.png"
    os.utime(xml, ns=(1, 1))
    assert len({first, second, annotation_file(path)}) == 3


def test_a_link_in_a_circle_hides_no_other_file(tmp_path: Path) -> None:
    _ = touched(tmp_path / "JPEGImages/a.jpg")
    for folder in ("JPEGImages/circle.jpg", "Annotations/circle.xml"):
        (tmp_path / folder).parent.mkdir(exist_ok=True)
        (tmp_path / folder).symlink_to(Path(folder).name)
    _ = annotated(tmp_path, "a", "a.jpg")
    assert read_set(listed(tmp_path, "a"), tmp_path / "JPEGImages").file_names[0] == "a.jpg"


def test_a_linked_folder_inside_the_images_is_read(tmp_path: Path) -> None:
    _ = touched(tmp_path / "JPEGImages/real/a.jpg")
    (tmp_path / "JPEGImages/link").symlink_to(tmp_path / "JPEGImages/real")
    _ = annotated(tmp_path, "link/a", "a.jpg")
    dataset = read_set(listed(tmp_path, "link/a"), tmp_path / "JPEGImages")
    assert dataset.file_names[0] == "link/a.jpg"
