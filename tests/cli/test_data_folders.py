"""A folder of any format alone: the commands and the functions from Python work with it from training to scoring."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import resdet
from layout_folders import TRAIN, VAL, WRITERS, text, yolo_ultralytics
from resdet.cli.main import main

NANO = [
    "nano", "train.steps=2", "optim.warmup_steps=1", "train.checkpoint_every=2", "model.box_head.score_threshold=0.0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("layout", ["coco_2017", "yolo_roboflow", "voc_roboflow", "cvat_images", "csv_tables"])
def test_a_folder_is_checked_trained_evaluated_and_scored(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = tmp_path / "set", tmp_path / "run"
    WRITERS[layout](folder)
    assert main(["check-data", str(folder), "--decode"]) == 0
    printed = capsys.readouterr().out
    assert f"read as {layout.partition('_')[0]}" in printed.replace("\n", " ")
    assert f"all {len(TRAIN)} images decode" in printed
    assert main(["train", *NANO, f"data.path={folder}", "--dry-run"]) == 0
    assert main(["train", *NANO, f"data.path={folder}", "data.sampler=class_aware", "--output", str(run)]) == 0
    printed = capsys.readouterr().out
    assert f"train: {folder}" in printed
    assert (run / "drawings/overview.jpg").is_file()
    trained = json.loads((run / "eval.json").read_text())
    assert main(["evaluate", str(run), "--output", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again/eval.json").read_text()) == trained
    scored = tmp_path / "scored.json"
    assert main(["score", str(folder), str(run / "predictions.json"), "--json", str(scored)]) == 0
    assert json.loads(scored.read_text())["bbox/AP"] == pytest.approx(trained["bbox/AP"])
    report = json.loads((run / "data_report.json").read_text())
    assert f"read as {layout.partition('_')[0]}" in json.dumps(report)


def test_a_resumed_run_is_that_without_a_break(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path / "set")
    arguments = [*NANO, f"data.path={tmp_path}/set", "data.sampler=repeat_factor", "data.sampler_threshold=1"]
    long = ["train.steps=4", "train.checkpoint_every=2", "optim.milestones=[0.9]"]
    assert main(["train", *arguments, *long, "--output", str(tmp_path / "whole")]) == 0
    first = tmp_path / "whole/checkpoints/step_00000002"
    assert main(["train", *arguments, *long, "--output", str(tmp_path / "parts"), "--resume", str(first)]) == 0
    weights, again = (
        load_file(tmp_path / f"{run}/checkpoints/step_00000004/model.safetensors") for run in ("whole", "parts")
    )
    assert all(torch.equal(weight, again[name]) for name, weight in weights.items())


def test_from_python_a_folder_is_a_data_set(tmp_path: Path) -> None:
    yolo_ultralytics(tmp_path)
    assert len(resdet.open_dataset(tmp_path, split="val")) == len(VAL)
    config = resdet.load_config("nano")
    config.data.path = [str(tmp_path)]
    assert len(resdet.open_dataset(config, split="train")) == len(TRAIN)


def test_a_mistake_in_a_folder_ends_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yolo_ultralytics(tmp_path / "set")
    text(tmp_path / "set/labels/train/a.txt", "9 0.5 0.5 0.1 0.1\n")
    assert main(["train", *NANO, f"data.path={tmp_path}/set", "--output", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/set/labels/train/a.txt: line 1: class '9' is none of the 2 classes")
    assert main(["check-data", str(tmp_path / "set"), "--split", "val"]) == 0
    assert main(["train", *NANO, "task=classification", f"data.path={tmp_path}/set", "--dry-run"]) == 2
    assert "is for detection" in capsys.readouterr().err


def test_a_config_with_a_folder_is_read_back(tmp_path: Path) -> None:
    lines = ["data.path=[a, b]", "data.classes=[bee, '2017']", "data.rename={Bee: bee, old name: 'new: name'}"]
    config = resdet.load_config("nano", overrides=lines)
    (tmp_path / "c.yaml").write_text(resdet.config.to_yaml(config))
    assert resdet.load_config(tmp_path / "c.yaml") == config
    assert config.data.rename == {"Bee": "bee", "old name": "new: name"}
