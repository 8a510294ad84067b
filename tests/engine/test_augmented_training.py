"""A run with a list of transforms: exact on resume, and the same run only with the same list."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from exact_resume import assert_resume_is_exact
from safetensors.torch import load_file
from test_distributed import in_processes
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


def counts(run: Path, read_metrics: Any) -> dict[int, float]:
    """The number of dropped objects in each line of the metrics, by step."""
    return {line["step"]: line["dropped_objects"] for line in read_metrics(run) if "dropped_objects" in line}


def test_a_line_of_the_log_counts_the_objects_dropped_in_all_steps_since_the_line_before(
    tmp_path: Path, nano: Config, nano_arguments: list[str], read_metrics: Any
):
    """Also after a resume in between, and over two processes, which see the images of one."""
    nano.data.augment.transforms = [{"mosaic": {}}]
    _ = train(nano, tmp_path / "each")
    each = counts(tmp_path / "each", read_metrics)
    assert list(each) == [1, 2, 3, 4, 5, 6]
    assert len({count for count in each.values() if count}) > 1, "or a test of sums tells little"
    sums = {4: sum(each[step] for step in (1, 2, 3, 4)), 6: each[5] + each[6]}

    nano.train.log_every, nano.train.keep_checkpoints = 4, 10
    _ = train(nano, tmp_path / "sums")
    assert counts(tmp_path / "sums", read_metrics) == sums
    assert f"  {sums[4]:g} objects dropped\n" in (tmp_path / "sums/log.txt").read_text()
    shutil.rmtree(checkpoints(tmp_path / "sums")[-1])
    _ = train(nano, tmp_path / "sums", resume=True)  # from step 3, after which the line of step 4 has to come again
    assert counts(tmp_path / "sums", read_metrics) == sums

    arguments = [*nano_arguments, "data.augment.transforms=[mosaic]", "train.log_every=4", "--output"]
    done = in_processes(2, [*arguments, str(tmp_path / "two")])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    assert counts(tmp_path / "two", read_metrics) == sums
    shutil.rmtree(checkpoints(tmp_path / "two")[-1])
    done = in_processes(2, [*arguments, str(tmp_path / "two"), "--resume"])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    assert counts(tmp_path / "two", read_metrics) == sums


def test_a_resume_near_the_end_goes_on_without_mixing(tmp_path: Path, nano: Config):
    """Of six steps the last two have one image each on the square of the mosaic; three workers read ahead."""
    nano.data.augment.transforms, nano.data.augment.close_mix, nano.data.workers = [{"heavy": {}}], 1 / 3, 3
    _ = assert_resume_is_exact(nano, tmp_path, at=(3, 5))


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
