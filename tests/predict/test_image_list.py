"""Which files are predicted, and that no drawing overwrites another."""

from pathlib import Path

import pytest

from resdet.errors import UserError
from resdet.predict.image_list import drawing_names, find_images, images_at, is_one_file


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_gives_its_images_by_name_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "notes.txt", "._a.png", "below/c.jpg", "d.tiff/e.txt")
    assert find_images([tmp_path]) == [tmp_path / "a.png", tmp_path / "b.JPG"]


def test_files_keep_their_order_and_come_once(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg", "odd.name")
    chosen = [tmp_path / "odd.name", tmp_path / "b.jpg"]
    assert find_images([*chosen, tmp_path]) == [*chosen, tmp_path / "a.jpg"]


def test_a_missing_path_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.jpg: no such file"):
        _ = find_images([tmp_path / "nothing.jpg"])
    touch(tmp_path, "below/c.jpg")
    with pytest.raises(UserError, match=r"has no images .* subfolders are not searched"):
        _ = find_images([tmp_path])


def test_drawings_are_named_after_their_images() -> None:
    assert drawing_names(["photos/a.png", "b.c.jpg"]) == ["a.jpg", "b.c.jpg"]


def test_equal_names_are_told_apart_also_where_case_does_not_count() -> None:
    names = drawing_names(["x/a.jpg", "y/a.jpg", "A.png", "a_2.jpg", "猫.jpg", "猫.png"])
    assert names == ["a.jpg", "a_2.jpg", "A_3.jpg", "a_2_2.jpg", "猫.jpg", "猫_2.jpg"]
    assert len({name.casefold() for name in names}) == len(names)


def test_a_name_that_the_file_system_allows_gives_one_that_it_allows() -> None:
    for name in drawing_names(["é" * 127, "é" * 127, "x" * 255]):
        assert len(name.encode("utf-8", "surrogateescape")) <= 255


def test_a_path_too_long_for_a_file_name_is_one_line() -> None:
    for question in (images_at, is_one_file):
        with pytest.raises(UserError, match="cannot be used as a path"):
            _ = question("a" * 300)
