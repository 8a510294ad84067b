"""Classes are chosen, renamed, merged and joined by their names, for every format and before the verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from layout_folders import OBJECTS, TRAIN, VAL, csv_tables, picture, text, yolo_ultralytics
from resdet.config import DataConfig, load_config
from resdet.data.batches.loader import open_split
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path_factory.mktemp("cache")))


def data(*overrides: str) -> DataConfig:
    return load_config(overrides=[f"data.{override}" for override in overrides]).data


def opened(path: Path | str, *overrides: str, split: str = "train") -> CocoDataset:
    return open_split(data(f"path={path}", *overrides), split)


def refused(path: Path | str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        _ = opened(path, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counts(dataset: CocoDataset) -> dict[str, int]:
    return dataset.report.class_counts


def test_chosen_classes_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path)
    dataset = opened(tmp_path, "classes=wasp")
    assert (dataset.class_names, dataset.category_ids.tolist(), counts(dataset)) == (("wasp",), [1], {"wasp": 1})
    note = dataset.report.skipped["class not in data.classes"]
    assert (note.count, note.examples) == (2, [1, 3])
    assert dataset.report.annotations_read == 3
    assert len(dataset) == len(TRAIN)  # images stay; data.empty_images drops those that are empty now


def test_renamed_classes_that_meet_are_one(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path)
    assert counts(opened(tmp_path, "rename={bee: honey bee}")) == {"honey bee": 2, "wasp": 1}
    merged = opened(tmp_path, "rename={bee: insect, wasp: insect}")
    assert (counts(merged), merged.category_ids.tolist()) == ({"insect": 3}, [0])
    assert counts(opened(tmp_path, "rename={wasp: bee}")) == {"bee": 3}
    assert counts(opened(tmp_path, "rename={bee: wasp, wasp: bee}")) == {"wasp": 2, "bee": 1}
    assert counts(opened(tmp_path, "rename={bee: insect}", "classes=[insect]")) == {"insect": 2}


def test_the_same_choice_holds_for_files_that_are_named(tmp_path: Path) -> None:
    csv_tables(tmp_path)
    files = ["train.annotations=" + str(tmp_path / "train.csv"), f"train.images={tmp_path}"]
    dataset = open_split(data(*files, "rename={bee: apis}", "classes=[apis]"), "train")
    assert counts(dataset) == {"apis": 2}


def test_a_name_that_is_no_class_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path)
    assert "data.classes: 'beee' is no class of" in refused(tmp_path, "classes=[beee]")
    assert "did you mean 'bee'?" in refused(tmp_path, "classes=[beee]")
    assert "data.rename: 'wap' is no class" in refused(tmp_path, "rename={wap: a}")


@pytest.mark.parametrize(("share", "left"), [(1, 10), (0.5, 5), (0.2, 2), (0, 0)])
def test_images_without_objects_are_kept_dropped_or_rationed(tmp_path: Path, share: float, left: int) -> None:
    yolo_ultralytics(tmp_path)
    for number in range(9):
        picture(tmp_path / f"images/train/empty{number}.jpg")
    dataset = opened(tmp_path, f"empty_images={share}")
    assert int((dataset.objects_per_image() == 0).sum()) == left
    assert int((dataset.objects_per_image() > 0).sum()) == 2
    assert ("dropped" in dataset.report.summary()) == (share < 1)
    assert len(opened(tmp_path, "empty_images=0", split="val")) == len(VAL)  # what is scored stays whole


def test_two_sets_of_other_formats_are_joined_by_name(tmp_path: Path) -> None:
    """YOLO's ids are 0 and 1, the table's 1 and 2: bee keeps 0 and wasp 1."""
    yolo_ultralytics(tmp_path / "one")
    csv_tables(tmp_path / "two")
    paths = f"[{tmp_path}/one, {tmp_path}/two]"
    for split, names in (("train", TRAIN), ("val", VAL)):
        dataset = opened(paths, split=split)
        assert (dataset.class_names, dataset.category_ids.tolist()) == (("bee", "wasp"), [0, 1])
        assert len(dataset) == 2 * len(names)
        assert len(set(dataset.image_ids.tolist())) == len(dataset)
        assert len(set(dataset.annotation_ids.tolist())) == len(dataset.annotation_ids)
        assert all(dataset.path(index).is_file() for index in range(len(dataset)))
        want = [(name, box) for stem in names for name, box in OBJECTS[stem]]
        found = [
            (dataset.class_names[label], tuple(round(float(side)) for side in box))
            for label, box in zip(dataset.labels, dataset.boxes, strict=True)
        ]
        assert found == want + want


def sets_that_say_bee_and(folder: Path, other: str) -> str:
    """data.path of two sets, of which the second has another name for the first one's bee."""
    yolo_ultralytics(folder / "one")
    csv_tables(folder / "two")
    for name in ("train", "val"):
        table = folder / f"two/{name}.csv"
        text(table, table.read_text().replace("bee", other))
    return f"[{folder}/one, {folder}/two]"


def test_a_set_that_lacks_a_class_is_said(tmp_path: Path) -> None:
    dataset = opened(sets_that_say_bee_and(tmp_path, "hornet"))
    assert counts(dataset) == {"bee": 2, "wasp": 2, "hornet": 2}
    assert f"{tmp_path}/one/data.yaml (train) does not mark hornet" in dataset.report.summary()
    assert "does not mark bee, which count as absent there" in dataset.report.summary()


def test_names_that_differ_in_case_alone_contradict_each_other(tmp_path: Path) -> None:
    paths = sets_that_say_bee_and(tmp_path, "Bee")
    message = refused(paths)
    assert f"{tmp_path}/two/train.csv: class 'Bee' is 'bee' in {tmp_path}/one/data.yaml (train)" in message
    assert message.endswith("data.rename={Bee: bee}")
    assert counts(opened(paths, "rename={Bee: bee}")) == {"bee": 4, "wasp": 2}


def test_a_mistake_in_one_of_several_sets_names_that_set(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path / "one")
    yolo_ultralytics(tmp_path / "two")
    text(tmp_path / "two/labels/train/a.txt", "7 0.5 0.5 0.1 0.1\n")
    assert refused(f"[{tmp_path}/one, {tmp_path}/two]").startswith(f"{tmp_path}/two/labels/train/a.txt: line 1")


def test_the_same_set_twice_has_every_image_twice(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path)
    once, twice = opened(tmp_path), opened(f"[{tmp_path}, {tmp_path}]")
    assert len(twice) == 2 * len(once)
    assert counts(twice) == {name: 2 * count for name, count in counts(once).items()}
