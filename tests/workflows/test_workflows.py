"""From Python a function does what its command does, writes the same files and returns a typed object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resdet
from clips import write_clip
from resdet.cli.main import main
from resdet.coco.annotation_file import AnnotationFile
from resdet.config import load_config
from resdet.data.sets import cache
from resdet.errors import UserError
from resdet.workflows.train import TrainedRun, with_pictures

TINY = [
    "train.steps=4", "data.shapes.train_images=8", "data.shapes.val_images=4", "train.device=cpu",
    "train.checkpoint_every=2", "model.box_head.score_threshold=0.0",
]  # fmt: skip
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return resdet.train("nano", tmp_path_factory.mktemp("runs") / "python", overrides=TINY)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_training_is_that_of_the_command(run: TrainedRun, tmp_path: Path) -> None:
    assert main(["train", "nano", *TINY, "--output", str(tmp_path / "run")]) == 0
    assert files(run.folder) == files(tmp_path / "run")
    assert (run.folder / "eval.json").read_bytes() == (tmp_path / "run/eval.json").read_bytes()
    assert (run.drawings, run.report) == (run.folder / "drawings/overview.jpg", run.folder / "report.html")
    assert run.remarks == ()


@pytest.mark.parametrize("by_command", [False, True])
def test_a_run_parses_each_annotation_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_command: bool
) -> None:
    real = cache.read_annotation_file
    parsed: list[str] = []

    def counted(path: Path) -> AnnotationFile:
        parsed.append(path.name)
        return real(path)

    monkeypatch.setattr(cache, "read_annotation_file", counted)
    overrides = [*TINY, "eval.every=2"]
    if by_command:
        assert main(["train", "nano", *overrides, "--output", str(tmp_path / "run")]) == 0
    else:
        _ = resdet.train("nano", tmp_path / "run", overrides=overrides)
    assert (tmp_path / "run/drawings/overview.jpg").exists()
    assert (tmp_path / "run/report.html").exists()
    assert sorted(parsed) == ["instances_train.json", "instances_val.json"]


def test_a_run_is_a_mapping_of_its_figures_and_gives_its_detector(run: TrainedRun) -> None:
    assert isinstance(run, Mapping)
    assert run["bbox/AP"] == run.figures["bbox/AP"]
    assert dict(run) == run.figures
    written = json.loads((run.folder / "eval.json").read_text())
    assert written["bbox/AP50"] == run["bbox/AP50"]
    assert repr(run).startswith(f"<TrainedRun {run.folder}, bbox/AP ")
    assert len(run.load(device="cpu")(IMAGE)) > 0


def test_a_config_is_a_name_a_file_an_object_or_a_list(tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    _ = more.write_text("train: {steps: 2}\n")
    config = load_config("nano", overrides=TINY)
    for number, given in enumerate(("nano", ["nano", more], config)):
        run = resdet.train(given, tmp_path / str(number), overrides=[*TINY, "train.steps=3"], dry_run=True)
        assert run.config.train.steps == 3
    assert config.train.steps == 4, "a config that is given is not changed"
    assert not (tmp_path / "0").exists(), "a dry run writes nothing"


def test_what_cannot_be_drawn_is_a_remark_and_no_error(run: TrainedRun, tmp_path: Path) -> None:
    lost = with_pictures(TrainedRun(tmp_path / "{lost}", run.figures, run.config))
    assert (lost.drawings, lost.report) == (None, None)
    assert lost.remarks[0].startswith(f"no drawings: {tmp_path}/{{lost}}: is no run folder")
    assert lost.remarks[1].startswith(f"warning: no report: {tmp_path}/{{lost}}: is no run folder")
    assert lost.remarks[1].endswith(f"resdet report {tmp_path}/{{lost}} tries again")


def test_an_evaluation_is_that_of_the_command(run: TrainedRun, tmp_path: Path) -> None:
    done = resdet.evaluate(run.folder, output=tmp_path / "python")
    assert main(["evaluate", str(run.folder), "--output", str(tmp_path / "command")]) == 0
    assert files(tmp_path / "python") == files(tmp_path / "command")
    assert (tmp_path / "python/eval.json").read_bytes() == (tmp_path / "command/eval.json").read_bytes()
    assert done.figures == run.figures
    assert done.dataset is not None
    assert len(done.dataset) == 4
    assert done.detections is not None
    assert len(done.detections) == len(json.loads((tmp_path / "python/predictions.json").read_text()))
    assert done.drawings == tmp_path / "python/drawings/overview.jpg"
    assert resdet.evaluate(str(run.folder), ensemble=[run.checkpoint]).output is None


def test_a_comparison_is_that_of_the_command(tmp_path: Path) -> None:
    lines: list[str] = []
    done = resdet.compare("nano", ["nano"], tmp_path / "c", overrides=TINY, rounds=0, resamples=10, say=lines.append)
    assert done.page == tmp_path / "c/compare.html"
    assert (tmp_path / "c/compare.html").is_file()
    assert done.failures == {}
    assert done.comparison is not None
    assert [backbone.name for backbone in done.comparison.contestants] == ["nano"]
    assert any("nano-seed0" in line for line in lines)


def test_a_folder_of_predictions_is_that_of_the_command(run: TrainedRun, tmp_path: Path) -> None:
    photos, lines, counts = tmp_path / "photos", list[str](), list[tuple[int, int | None]]()
    photos.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(IMAGE).save(photos / name)
    _ = (photos / "broken.png").write_bytes(b"no image")
    done = resdet.predict_folder(
        run.folder, [photos / "b.png", photos], tmp_path / "python", score=0.0, also=["csv", "txt"],
        say=lines.append, progress=lambda done, total, _: counts.append((done, total)),
    )  # fmt: skip
    command = ["predict", str(run.folder), str(photos / "b.png"), str(photos), "--score", "0", "--csv", "--txt"]
    assert main([*command, "--output", str(tmp_path / "command")]) == 2
    assert files(done.folder) == files(tmp_path / "command") > {"a.jpg", "txt/a.txt", "objects.csv"}
    for name in ("images.json", "predictions.json", "objects.csv", "txt/a.txt"):
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
    assert (done.given, done.images) == (3, 2)
    assert done.drawn == len(json.loads((done.folder / "predictions.json").read_text())) > 0
    assert [Path(each["file_name"]).name for each in done.skipped] == ["broken.png"]
    assert counts[0] == (0, 3)
    assert counts[-1][1] == 3
    assert lines[0].endswith(", 8 classes")
    assert lines[-2].startswith("images: 2, objects with a score of at least 0: ")


def test_a_video_object_is_predicted_into_a_folder(run: TrainedRun, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.avi", frames=4)
    done = resdet.predict_folder(run.folder, resdet.Video(clip, every=2), tmp_path / "out", say=lambda _: None)
    assert (done.given, done.images) == (1, 2)


def test_a_data_set_is_a_file_with_its_images_or_a_split_of_a_config(run: TrainedRun) -> None:
    val = resdet.open_dataset(run.config, split="val")
    assert len(val) == 4
    same = resdet.open_dataset(str(val.annotations), val.images)
    np.testing.assert_array_equal(same.boxes, val.boxes)
    assert same.report.summary() == val.report.summary()
    assert len(resdet.open_dataset(run.folder / "config.yaml", split="train")) == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resdet.open_dataset("a.json"), "a.json: give the folder of its images, or split='train' or 'val'"),
        (lambda: resdet.open_dataset("a.json", "b", split="val"), "exclude each other"),
        (lambda: resdet.open_dataset("nano", split="test"), "split=test is not known; give 'train' or 'val'"),
        (lambda: resdet.train("nanoo", "x"), "nanoo: is no config; did you mean 'nano'"),
        (lambda: resdet.train("nano", "x", overrides="a=b"), r"is one text; give a list, \['a=b'\]"),
        (lambda: resdet.evaluate("x", overrides="a=b"), r"is one text; give a list, \['a=b'\]"),
        (lambda: resdet.evaluate("absent"), "absent: no such file or folder"),
        (lambda: resdet.compare("nano", "resnet18", "x"), r"backbones='resnet18' is one text; give a list"),
        (lambda: resdet.compare("nano", ["nano"], "x", seeds=0), "seeds 0 must be at least 1"),
        (lambda: resdet.compare("nano", ["nano"], "x", engine="rai"), "--engine=rai is not known; did you mean 'ray'"),
        (lambda: resdet.compare("nano", ["nano"], "x", address="a:1"), "--address a:1 is that of a Ray cluster"),
        (lambda: resdet.predict_folder("x", [], "y"), "no PATH given"),
        (lambda: resdet.predict_folder("x", "absent.jpg", "y"), "absent.jpg: no such file or folder"),
        (lambda: resdet.predict_folder("x", "absent.jpg", "y", also=["cvs"]), "also=cvs is not known; did you mean"),
        (lambda: resdet.predict_folder("x", "absent.jpg", "y", score=2.0), "score 2 must lie between 0 and 1"),
    ],
)
def test_a_mistake_is_one_line(call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []
