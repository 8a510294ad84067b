"""The benchmark measures the same detector on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resdet.analysis.benchmark.guard import Change
from resdet.analysis.benchmark.peers import TorchvisionPeer
from resdet.analysis.benchmark.timing import alternate, benchmark, random_batch
from resdet.cli.main import main
from resdet.config import Config, load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model

CONFIG = Path(__file__).parents[3] / "configs" / "faster_rcnn_r18_fpn_1x_coco.yaml"
BOX_FEATURES = 1024  # before the predictions of classes and boxes


def config(*overrides: str) -> Config:
    return load_config(
        CONFIG, overrides=["model.backbone.weights=null", "train.device=cpu", "train.channels_last=false", *overrides]
    )


def test_the_peer_has_the_same_parameters_in_the_same_places() -> None:
    """All but the background's four box rows, which torchvision has and does not use."""
    ours, theirs = build_model(config().model, 80), TorchvisionPeer(config().model, 80, (64, 64)).detector
    unused = 4 * (BOX_FEATURES + 1)
    assert sum(p.numel() for p in theirs.parameters()) - sum(p.numel() for p in ours.parameters()) == unused
    ours_trained = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert sum(p.numel() for p in theirs.parameters() if p.requires_grad) - ours_trained == unused


def test_the_peer_of_a_mask_rcnn_has_its_mask_head() -> None:
    """And one mask more, for the background, which is not used."""
    model = config("model.mask_head.channels=64").model
    ours, theirs = build_model(model, 80), TorchvisionPeer(model, 80, (64, 64)).detector
    unused = 4 * (BOX_FEATURES + 1) + 64 + 1
    assert sum(p.numel() for p in theirs.parameters()) - sum(p.numel() for p in ours.parameters()) == unused


def test_both_learn_the_same_masks_and_give_them_in_cells() -> None:
    model = config("model.mask_head.channels=8").model
    batch = random_batch((64, 96), (64, 96), 1, mask_resolution=16)
    assert batch.targets is not None
    peer = TorchvisionPeer(model, 80, (64, 96))
    images, targets = peer.inputs(batch)
    areas = ((boxes := batch.targets.boxes[0])[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    torch.testing.assert_close(targets[0]["masks"].sum((1, 2)).float(), areas, rtol=0.15, atol=40)
    assert set(peer.train()(images, targets)) >= {"loss_mask"}
    assert set(build_model(model, 80)(batch)) >= {"loss_mask"}
    assert all(found["masks"].shape[1:] == (1, 28, 28) for found in peer.eval().predict(images))


def test_the_peer_trains_and_predicts_on_our_batches() -> None:
    batch = random_batch((64, 96), (64, 96), 2)
    peer = TorchvisionPeer(config().model, 80, (64, 96))
    images, targets = peer.inputs(batch)
    assert [image.shape for image in images] == [torch.Size([3, 64, 96])] * 2
    assert all(loss.isfinite() for loss in peer.train()(images, targets).values())
    assert len(peer.eval().predict(images)) == 2


def test_the_ratio_is_the_median_over_pairs_of_the_peers_time_over_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs of 4, 1 and 3 times: their median is 3, where the ratio of the medians would be 2."""
    monkeypatch.setattr(f"{benchmark.__module__}.alternate", lambda *_: [[1.0, 2.0, 3.0], [4.0, 2.0, 9.0]])
    file = tmp_path / "times.json"
    arguments = ["benchmark", str(CONFIG), "train.device=cpu", "--size", "64x64", "--batch", "1", "--pairs", "3"]
    assert main([*arguments, "--against", "torchvision", "--json", str(file)]) == 0
    times = json.loads(file.read_text())
    for part in ("train", "predict"):
        assert [times[f"{part}/{name}"] for name in ("seconds", "peer_seconds", "ratio")] == [2, 4, 3]


def test_contestants_take_turns_and_the_first_round_is_not_counted() -> None:
    turns: list[str] = []
    contestants = [(turns.append, ("ours",)), (turns.append, ("peer",))]
    seconds = alternate(contestants, 2, torch.device("cpu"))
    assert turns == ["ours", "peer"] * 3
    assert [len(times) for times in seconds] == [2, 2]


def test_alone_there_is_no_ratio() -> None:
    times = benchmark(config(), size=(64, 64), batch_size=1, against=None, pairs=1)
    assert "train/seconds" in times
    assert "train/ratio" not in times


@pytest.mark.parametrize(
    "override",
    [
        "model.backbone.name=vgg16",
        "model.backbone.norm=gn",
        "model.neck.name=pafpn",
        "model.mask_head.class_agnostic=true",
    ],
)
def test_what_torchvision_does_not_build_is_refused(override: str) -> None:
    with pytest.raises(UserError, match="torchvision has no detector with"):
        _ = TorchvisionPeer(config(override).model, 80, (64, 64))


@pytest.mark.parametrize("size", ["480", "0x640", "wide"])
def test_a_size_that_is_none_is_one_line(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(CONFIG), "--size", size]) == 2
    assert "for example 480x640" in capsys.readouterr().err


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the peer so many times as slow as resdet, and a little more or less in each pair."""

    def ratio(value: float) -> None:
        times = [[1.0, 1.0, 1.0], [0.99 * value, value, 1.01 * value]]
        monkeypatch.setattr(f"{benchmark.__module__}.alternate", lambda *_: times)

    return ratio


ARGUMENTS = [
    "benchmark",
    str(CONFIG),
    "train.device=cpu",
    "train.channels_last=false",
    "--size",
    "64x64",
    "--batch",
    "1",
    "--pairs",
    "3",
]


@pytest.mark.parametrize(("now", "code"), [(1.5, 0), (1.36, 0), (1.34, 1), (2.0, 0)])
def test_a_speed_below_nine_tenths_of_an_earlier_one_fails(
    now: float, code: int, tmp_path: Path, timed: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "before.json"
    timed(1.5)
    assert main([*ARGUMENTS, "--against", "torchvision", "--json", str(file)]) == 0
    timed(now)
    assert main([*ARGUMENTS, "--against", str(file)]) == code
    said = capsys.readouterr().out
    assert f"training step: times faster than torchvision 1.50 before, {now:.2f} now" in said
    assert ("SLOWER" in said) == bool(code)


def test_pairs_that_scatter_widely_are_no_verdict() -> None:
    assert not Change(before=[0.8, 1.0, 1.6, 2.0], now=[0.7, 0.9, 1.1, 1.9]).slower
    assert Change(before=[1.0], now=[0.8]).slower


def test_a_file_that_cannot_be_compared_is_one_line(
    tmp_path: Path, timed: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    timed(1.5)
    file = tmp_path / "before.json"
    assert main([*ARGUMENTS, "--against", "torchvision", "--json", str(file)]) == 0
    before = json.loads(file.read_text())
    other = {
        "another config": before | {"conditions": before["conditions"] | {"config": "model: {}"}},
        "processor 8086": before | {"conditions": before["conditions"] | {"processor": "8086"}},
        "batch 16, not 1": before | {"batch": 16},
        "has no ratios of pairs": {"train/seconds": 1.0},
    }
    for message, content in other.items():
        _ = file.write_text(json.dumps(content))
        assert main([*ARGUMENTS, "--against", str(file)]) == 2
        assert message in capsys.readouterr().err
    assert main([*ARGUMENTS, "--against", "tensorflow"]) == 2
    assert "it must be torchvision or a file of --json" in capsys.readouterr().err
