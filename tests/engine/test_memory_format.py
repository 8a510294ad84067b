"""A memory format that the config leaves open is found by timing both, once, and written into the run."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exact_resume import assert_same, last_step

from resdet.config import Config, load_config
from resdet.config.diff import check_same_run
from resdet.engine.checkpoint import checkpoint_path, checkpoints, read_state
from resdet.engine.distributed import World
from resdet.engine.train import memory_format, train
from resdet.engine.train.memory_format import timed_shape, times_as_quick, with_memory_format
from resdet.errors import UserError
from resdet.models.build.detector import build_model

CPU = torch.device("cpu")


@pytest.fixture
def open_format(nano: Config) -> Config:
    return replace(nano, train=replace(nano.train, channels_last=None))


def answers(monkeypatch: pytest.MonkeyPatch, *ratios: float) -> None:
    """The measurements say these ratios, and no further one is made."""
    left: Iterator[float] = iter(ratios)
    monkeypatch.setattr(memory_format, "times_as_quick", lambda *_: next(left))


@pytest.mark.parametrize(
    ("ratio", "written"), [(0.2, "true"), (1.0, "true"), (1.04, "true"), (1.06, "false"), (5, "false")]
)
def test_contiguous_tensors_are_taken_where_they_are_clearly_quicker(
    monkeypatch: pytest.MonkeyPatch, open_format: Config, ratio: float, written: str
) -> None:
    answers(monkeypatch, ratio)
    config, lines = with_memory_format(open_format, build_model(open_format.model, 3).backbone, CPU, World())
    assert config.train.channels_last is (written == "true")
    assert f"train.channels_last={written}: contiguous images are {ratio:.2f} times" in lines[0]


def test_nothing_is_measured_where_the_answer_is_known(monkeypatch: pytest.MonkeyPatch, open_format: Config) -> None:
    answers(monkeypatch)
    backbone = build_model(open_format.model, 3).backbone
    for given in (True, False):
        config = replace(open_format, train=replace(open_format.train, channels_last=given))
        assert with_memory_format(config, backbone, CPU, World()) == (config, [])
    for config, device in (
        (replace(open_format, train=replace(open_format.train, deterministic=True)), CPU),
        (open_format, torch.device("cuda")),
    ):
        decided, lines = with_memory_format(config, backbone, device, World())
        assert (decided.train.channels_last, lines) == (True, [])


def test_a_measurement_changes_neither_the_backbone_nor_the_random_numbers(open_format: Config) -> None:
    model = build_model(replace(open_format.model, backbone=replace(open_format.model.backbone, norm="bn")), 3).train()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    assert times_as_quick(open_format, model.backbone, CPU) > 0
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_frozen_backbone_is_measured_too(open_format: Config) -> None:
    backbone = build_model(open_format.model, 3).backbone.requires_grad_(requires_grad=False)
    assert times_as_quick(open_format, backbone, CPU) > 0


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        (["train.batch_size=16"], (1, 3, 800, 1088)),  # 800 * 4 / 3 = 1066, to the next multiple of 32
        (["data.augment.short_side=[128]", "train.batch_size=8"], (8, 3, 128, 192)),
        (["data.augment.short_side=[128]", "train.batch_size=8", "train.accumulate=4"], (2, 3, 128, 192)),
        (
            ["data.augment.short_side=[640,800]", "data.augment.max_side=640", "train.batch_size=8"],
            (3, 3, 480, 640),
        ),  # 3.9
        (["task=classification", "train.batch_size=256"], (23, 3, 224, 224)),  # 1,200,000 / 224 ** 2 = 23.9
    ],
)
def test_the_measured_images_are_of_the_size_of_training_but_few(overrides: list[str], shape: tuple[int, ...]) -> None:
    assert timed_shape(load_config(overrides=overrides)) == shape


def test_a_run_writes_the_answer_down_and_a_resume_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, open_format: Config
) -> None:
    open_format.train.steps, open_format.train.checkpoint_every, open_format.train.keep_checkpoints = 4, 2, 9
    answers(monkeypatch, 1.5)
    _ = train(open_format, tmp_path / "full")
    assert load_config(tmp_path / "full/config.yaml").train.channels_last is False
    _ = shutil.copytree(tmp_path / "full", tmp_path / "resumed")
    shutil.rmtree(checkpoints(tmp_path / "resumed")[-1])
    _ = train(open_format, tmp_path / "resumed", resume=True)
    assert last_step(tmp_path / "resumed") == 4
    ours, theirs = (read_state(checkpoint_path(tmp_path / run, 4)) for run in ("resumed", "full"))
    assert_same(ours, theirs, "state")
    assert load_config(tmp_path / "resumed/config.yaml").train.channels_last is False


def test_a_comparison_may_have_runs_whose_format_is_not_known_yet(tmp_path: Path) -> None:
    written, planned = load_config(overrides=["train.channels_last=false"]), load_config()
    check_same_run(written, planned, tmp_path)
    with pytest.raises(UserError, match=r"train.channels_last=true \(was false\)"):
        check_same_run(written, load_config(overrides=["train.channels_last=true"]), tmp_path)
