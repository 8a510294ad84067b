"""A data set in shards gives the batches of its files, bit by bit, and a shard that is not whole is one line."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from layout_folders import TRAIN, VAL, coco_2017
from resdet.cli.main import main
from resdet.coco import shards
from resdet.config import Config, load_config
from resdet.data.batches.loader import LoadedBatch, evaluation_batches, open_split, training_batches
from resdet.data.sets import writers
from resdet.errors import UserError
from resdet.workflows.convert_data import convert_data


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(writers, "SHARD_SAMPLES", 3)


@pytest.fixture
def shapes(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve training images with masks in COCO's layout, and the same in shards of three."""
    few = ["data.shapes.train_images=12", "data.shapes.val_images=2", "data.shapes.size=64"]
    folder = open_split(load_config("nano", overrides=few).data, "val").annotations.parents[1]
    _ = convert_data(folder, "shards", tmp_path / "shards")
    return folder, tmp_path / "shards"


def config(path: Path, *overrides: str) -> Config:
    fixed = ["train.batch_size=4", "data.workers=0", "model.mask_head={name: fcn}"]
    return load_config("nano", overrides=[f"data.path={path}", *fixed, *overrides])


def taken(config: Config, count: int, *, start: int = 0, rank: int = 0, world: int = 1) -> list[LoadedBatch]:
    dataset = open_split(config.data, "train")
    endless = training_batches(dataset, config, start_step=start, rank=rank, world_size=world)
    return list(itertools.islice(endless, count))


def assert_same(one: list[LoadedBatch], two: list[LoadedBatch]) -> None:
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left.batch.images, right.batch.images)
        assert left.batch.targets is not None
        assert right.batch.targets is not None
        for name, value in vars(left.batch.targets).items():
            assert torch.equal(value, getattr(right.batch.targets, name)), name
        assert [image.image_id for image in left.images] == [image.image_id for image in right.images]


def test_batches_are_those_of_the_files_and_a_resume_is_exact(shapes: tuple[Path, Path]) -> None:
    files, folder = shapes
    assert sorted(path.name for path in folder.iterdir()) == [
        "shards.json",
        *(f"train-00000{number}.tar" for number in range(4)),
        "val-000000.tar",
    ]
    plain = taken(config(files), 7)
    assert_same(taken(config(folder), 7), plain)
    assert_same(taken(config(folder, "data.workers=2"), 4, start=3), plain[3:])


def test_every_image_once_an_epoch_over_two_processes_and_two_workers(shapes: tuple[Path, Path]) -> None:
    chosen = config(shapes[1], "data.workers=2")
    seen: Counter[int] = Counter()
    for rank in (0, 1):
        for batch in taken(chosen, 3, rank=rank, world=2):
            seen.update(image.image_id for image in batch.images)
    assert seen == Counter(range(1, 13))
    val = open_split(chosen.data, "val")
    parts = [evaluation_batches(val, chosen, rank=rank, world_size=2) for rank in (0, 1)]
    assert Counter(image.image_id for part in parts for batch in part for image in batch.images) == Counter([1, 2])


def test_a_folder_in_shards_is_checked_and_converted_back(
    shapes: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-data", str(shapes[1]), "--decode"]) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "read as shards" in printed
    assert "all 12 images decode" in printed
    _ = convert_data(shapes[1], "coco", tmp_path / "back")
    assert_same(taken(config(tmp_path / "back"), 3), taken(config(shapes[1]), 3))


def test_kept_images_of_shards_are_the_same(shapes: tuple[Path, Path]) -> None:
    plain = taken(config(shapes[1]), 6)
    for _ in range(2):
        assert_same(taken(config(shapes[1], "data.cache=disk"), 6), plain)


def test_the_same_samples_are_the_same_bytes(tmp_path: Path) -> None:
    coco_2017(tmp_path / "set")
    for name in ("one", "two"):
        done = convert_data(tmp_path / "set", "shards", tmp_path / name)
        assert (done.images, done.lost) == ({"train": len(TRAIN), "val": len(VAL)}, {})
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        _ = open_split(config(folder).data, "train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("left", [0, 100, 511, 5000, -1, -1024, -1025])
def test_a_shard_that_is_cut_short_is_one_line(left: int, shapes: tuple[Path, Path]) -> None:
    """Also one without a byte of its end, and one that ends behind a sample."""
    shard = shapes[1] / "train-000002.tar"
    data = shard.read_bytes()
    whole = data.rstrip(b"\0")
    end = len(whole) + -len(whole) % 512
    _ = shard.write_bytes(data[: left if left >= 0 else end + 1024 + left])
    message = refused(shapes[1])
    assert message.startswith(f"{shard}: ")
    assert message.endswith("copy or fetch it again")


def rewritten(shard: Path, change: Callable[[dict[str, bytes]], Any]) -> None:
    with tarfile.open(shard) as archive:
        content = {name: archive.extractfile(name).read() for name in archive.getnames()}  # pyright: ignore
    _ = change(content)
    with tarfile.open(shard, "w") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def test_a_sample_that_is_missing_or_odd_is_one_line(shapes: tuple[Path, Path]) -> None:
    shard = shapes[1] / "train-000001.tar"
    data = shard.read_bytes()
    changes: dict[str, Callable[[dict[str, bytes]], Any]] = {
        "has no 00000001.json beside it": lambda content: content.pop("00000001.json"),
        "has 2 samples, and shards.json says 3": lambda content: content.pop("00000001.jpg"),
        "00000001.json: ": lambda content: content.update({"00000001.json": b"[1]"}),
        "00000001.json: Input data was truncated": lambda content: content.update({"00000001.json": b"{"}),
    }
    for words, change in changes.items():
        rewritten(shard, change)
        assert words in refused(shapes[1])
        _ = shard.write_bytes(data)
    shard.unlink()
    assert "No such file" in refused(shapes[1])


class Armed:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a shard ran code",))


def test_nothing_in_a_shard_runs(shapes: tuple[Path, Path]) -> None:
    plain = taken(config(shapes[1]), 3)
    armed = pickle.dumps(Armed())
    rewritten(
        shapes[1] / "train-000001.tar", lambda content: content.update({"00000001.pyd": armed, "x.pickle": armed})
    )
    assert_same(taken(config(shapes[1]), 3), plain)


def test_names_in_the_list_of_shards_stay_beside_it(shapes: tuple[Path, Path]) -> None:
    file = shapes[1] / "shards.json"
    content = json.loads(file.read_text())
    for name in ("../x.tar", "/etc/x.tar", "x.zip", ""):
        content["splits"]["train"][0]["file"] = name
        _ = file.write_text(json.dumps(content))
        assert "is no name of a shard (.tar) beside it" in refused(shapes[1])
    _ = file.write_text("{")
    assert "is no list of shards" in refused(shapes[1])


def test_a_link_in_a_shard_is_no_image(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("0.jpg")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    assert shards.members(tmp_path / "a.tar") == {}


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its files
def test_webdataset_reads_these_shards(shapes: tuple[Path, Path]) -> None:
    webdataset = pytest.importorskip("webdataset")
    source = webdataset.WebDataset(str(shapes[1] / "train-000000.tar"), shardshuffle=False)
    samples = list(source)
    assert [sample["__key__"] for sample in samples] == ["00000000", "00000001", "00000002"]
    assert json.loads(samples[1]["json"])["id"] == 2
    assert samples[0]["jpg"][:2] == b"\xff\xd8"
