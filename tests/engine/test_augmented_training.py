"""A run with a list of transforms: exact on resume, and the same run only with the same list."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from torch.testing import assert_close

from resdet.config import Config, config_from_yaml, load_config, to_yaml
from resdet.config.diff import differences, resume_warnings
from resdet.engine import checkpoint
from resdet.engine.checkpoint import checkpoints
from resdet.engine.train import train
from resdet.errors import UserError

TRANSFORMS: list[dict[str, dict[str, Any]]] = [
    {"Rotate": {"limit": 10, "p": 0.5}},
    {"mosaic": {"p": 0.5}},
    {"copy_paste": {"p": 0.5}},
    {"mixup": {"p": 0.3}},
    {"horizontal_flip": {}},
    {"GaussNoise": {"p": 0.5}},
]


def test_a_resumed_run_with_augmentation_ends_with_the_same_bits(tmp_path: Path, nano: Config, read_metrics: Any):
    nano.data.augment.transforms = TRANSFORMS
    nano.train.keep_checkpoints = 10
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    _ = train(nano, whole)
    _ = shutil.copytree(whole, halved)
    shutil.rmtree(checkpoints(halved)[-1])
    nano.data.workers = 1  # another number than before
    _ = train(nano, halved, resume=True)
    ours, theirs = (load_file(checkpoint.checkpoint_path(run, 6) / checkpoint.MODEL) for run in (halved, whole))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert_close(tensor, theirs[name], rtol=0, atol=0)
    for name in ("loss", "dropped_objects"):
        assert [line.get(name) for line in read_metrics(halved)] == [line.get(name) for line in read_metrics(whole)]
    assert all("dropped_objects" in line for line in read_metrics(whole) if "loss" in line)


def test_a_run_goes_on_with_the_same_list_only(nano: Config, tmp_path: Path):
    nano.data.augment.transforms = TRANSFORMS
    other = config_from_yaml(to_yaml(nano), "a run", ["data.augment.transforms=[lsj]"])
    assert config_from_yaml(to_yaml(nano), "a run") == nano
    with pytest.raises(UserError, match=r"trained with another config: data\.augment\.transforms=\[{lsj: {}}\]"):
        _ = resume_warnings(nano, other, tmp_path)


def test_the_config_of_a_run_from_before_there_were_lists_is_the_same(nano: Config):
    content = yaml.safe_load(to_yaml(nano))
    del content["data"]["augment"]["transforms"], content["data"]["augment"]["min_visible"]
    assert differences(config_from_yaml(yaml.safe_dump(content), "an old run"), nano) == {}


def test_a_list_is_not_for_classification(tmp_path: Path):
    config = load_config("cifar/patches", overrides=["data.augment.transforms=[heavy]", "train.steps=2"])
    with pytest.raises(UserError, match=r"data\.augment\.transforms is for task=detection"):
        _ = train(config, tmp_path / "run")
