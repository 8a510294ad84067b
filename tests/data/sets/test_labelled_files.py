"""Labelled image files: a folder per class, the devkit's flat val folder, and what is wrong with them in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from miniature import write_miniature
from resdet.data.sets.ilsvrc import read_synsets
from resdet.data.sets.labelled_files import flat_folder, folders_of_classes, imagenet
from resdet.errors import UserError

NUMBERS = "ILSVRC2015_clsloc_validation_ground_truth.txt"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_miniature(tmp_path, train=2, val=5, size=64)


def test_a_folder_per_class_has_the_classes_in_their_order_and_the_files_in_theirs(root: Path) -> None:
    dataset = imagenet(root.parent, "train")
    assert dataset.class_names == tuple(f"n9000000{number}" for number in range(1, 9))
    assert dataset.labels.tolist() == [label for label in range(8) for _ in range(2)]
    assert dataset.file_names[3] == "n90000002/n90000002_2.JPEG"
    assert dataset.path(3).is_file()
    assert dataset.report.summary() == f"16 images, 8 classes ({root}/Data/CLS-LOC/train)"


def test_a_link_in_a_circle_is_no_class_and_hides_none(root: Path) -> None:
    (root / "Data/CLS-LOC/train/circle").symlink_to("circle")
    assert len(imagenet(root.parent, "train").class_names) == 8


def test_the_devkit_s_numbers_give_the_classes_of_the_flat_folder(root: Path) -> None:
    """The map says which synset a number means: 3 is the first one here."""
    _ = (root / "devkit/data" / NUMBERS).write_text("3\n1\n3\n8\n2\n")
    dataset = imagenet(root.parent, "val")
    assert [dataset.class_names[label] for label in dataset.labels] == [
        "n90000001", "n90000002", "n90000001", "n90000004", "n90000003",
    ]  # fmt: skip
    whole = dataset.with_classes(imagenet(root.parent, "train").class_names)
    assert whole.labels.tolist() == [0, 1, 0, 3, 2]
    assert dataset.file_names[4] == "ILSVRC2012_val_00000005.JPEG"


def test_val_may_also_be_a_folder_per_class(root: Path) -> None:
    for path in (root / "Data/CLS-LOC/val").iterdir():
        path.unlink()
    (root / "Data/CLS-LOC/val/n90000002").mkdir()
    _ = (root / "Data/CLS-LOC/val/n90000002/a.JPEG").write_bytes(b"")
    assert imagenet(root.parent, "val").class_names == ("n90000002",)


def test_the_table_of_2012_in_matlab_s_format_says_the_same_as_the_list_of_2015(root: Path) -> None:
    data = root / "devkit/data"
    expected = read_synsets(data)
    rows = [(number, synset, 0) for number, synset in expected.items()] + [(9, "n99999999", 8)]  # a node above them
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]
    scipy.io.savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    (data / "map_clsloc.txt").unlink()
    assert read_synsets(data) == expected


def test_first_takes_images_of_all_parts_of_the_list(root: Path) -> None:
    dataset = imagenet(root.parent, "train").first(4)
    assert dataset.labels.tolist() == [0, 2, 5, 7]
    assert len(dataset.file_names) == 4


def test_the_fingerprint_is_that_of_names_and_labels(root: Path) -> None:
    first, again = imagenet(root.parent, "train"), imagenet(root.parent, "train")
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != first.first(8).fingerprint


def broken(root: Path, change: str) -> None:  # noqa: C901  # a table
    data, val, train = root / "devkit/data", root / "Data/CLS-LOC/val", root / "Data/CLS-LOC/train"
    numbers = data / NUMBERS
    match change:
        case "empty class":
            (train / "n90000009").mkdir()
        case "no classes":
            for path in sorted(train.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
        case "too few numbers":
            _ = numbers.write_text("1\n2\n")
        case "an unknown number":
            _ = numbers.write_text("1\n2\n9\n4\n5\n")
        case "no number":
            _ = numbers.write_text("1\n2\nthree\n4\n5\n")
        case "another year":
            _ = numbers.rename(data / "ILSVRC2010_validation_ground_truth.txt")
        case "two files of numbers":
            _ = (data / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
        case "a gap":
            _ = (val / "ILSVRC2012_val_00000002.JPEG").rename(val / "ILSVRC2012_val_00000009.JPEG")
        case "no synsets":
            (data / "map_clsloc.txt").unlink()
        case "no synset":
            _ = (data / "map_clsloc.txt").write_text("kit_fox 1 n02119789\n")
        case "matlab of another year":
            (data / "map_clsloc.txt").unlink()
            kinds = [("ILSVRC2010_ID", object), ("WNID", object), ("num_children", object)]
            rows = np.array([(1, "n90000001", 0), (2, "n90000002", 0)], dtype=kinds)
            scipy.io.savemat(data / "meta.mat", {"synsets": rows})
        case "damaged matlab":
            (data / "map_clsloc.txt").unlink()
            _ = (data / "meta.mat").write_bytes(b"MATLAB 5.0" * 40)


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        ("empty class", "train", r"train/n90000009: the folder of a class has no image; add some, or remove"),
        ("no classes", "train", r"train: has no folder of a class; expected train/CLASS/IMAGE.jpg"),
        ("too few numbers", "val", r"has 2 lines, and .*/val has 5 images"),
        ("an unknown number", "val", r"line 3 is '9', which is no number of a class of .*map_clsloc.txt \(1 to 8\)"),
        ("no number", "val", r"line 3 is 'three', which is no number"),
        ("another year", "val", r"ILSVRC2010_validation_ground_truth.txt: is of 2010, .* take the devkit of 2012"),
        ("two files of numbers", "val", r"devkit/data: has 2 files ..._validation_ground_truth.txt"),
        ("a gap", "val", r"'ILSVRC2012_val_00000003.JPEG' is image 2 of the folder by its place and 3 by its name"),
        ("no synsets", "val", r"has none of map_clsloc.txt, meta_clsloc.mat, meta.mat"),
        ("no synset", "val", r"class 1 is 'kit_fox', which is no synset such as n01440764"),
        ("matlab of another year", "val", r"meta.mat: is of 2010, whose classes and images differ"),
        ("damaged matlab", "val", r"meta.mat: is not the devkit's table of synsets"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_remedy(root: Path, change: str, split: str, message: str) -> None:
    broken(root, change)
    with pytest.raises(UserError, match=message) as error:
        _ = imagenet(root.parent, split)
    assert "\n" not in str(error.value)


def test_an_unknown_synset_is_named_with_what_was_meant(root: Path) -> None:
    _ = (root / "Data/CLS-LOC/train/n90000008").rename(root / "Data/CLS-LOC/train/n90000018")
    dataset = folders_of_classes(root / "Data/CLS-LOC/train")
    with pytest.raises(UserError, match=r"class 'n90000018' is not known; did you mean 'n90000008'"):
        _ = dataset.with_classes([f"n9000000{number}" for number in range(1, 9)])


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: No such file or directory; give a folder of images"):
        _ = folders_of_classes(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no image; expected the devkit's flat folder"):
        _ = flat_folder(tmp_path, tmp_path / "numbers.txt")
