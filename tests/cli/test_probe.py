"""`resdet probe`: what it writes and what it refuses."""

import json
from pathlib import Path

import pytest

from resdet.cli.main import main

ROOT = Path(__file__).parents[2]
PATCHES = [
    str(ROOT / "configs/cifar/patches.yaml"),
    "data.patches={train_images: 8, val_images: 4, size: 8}",
    "train.batch_size=4",
]
NANO = [str(ROOT / "configs/nano.yaml"), "data.shapes={train_images: 4, val_images: 2}"]


def test_a_page_numbers_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    nets = ["--backbones", "plain20_cifar", "resnet20_cifar", "--norms", "bn", "none"]
    options = ["--steps", "2", "--every", "1", "--output", str(tmp_path / "probe"), "--figure", str(tmp_path / "f.png")]
    assert main(["probe", *PATCHES, *nets, *options]) == 0
    names = ["plain20_cifar bn", "plain20_cifar none", "resnet20_cifar bn", "resnet20_cifar none"]
    seen = json.loads((tmp_path / "probe/probe.json").read_text())["nets"]
    assert list(seen) == names
    assert [shot["step"] for shot in seen[names[0]]] == [0, 1]
    assert len(seen[names[0]][0]["layers"]) == 19
    assert "plain20_cifar none" in (tmp_path / "probe/probe.html").read_text()
    assert (tmp_path / "f.png").exists()
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in names)


def test_a_detector_is_probed_like_a_classifier(tmp_path: Path):
    assert main(["probe", *NANO, "--kernels", "all", "--steps", "1", "--output", str(tmp_path)]) == 0
    (look,) = json.loads((tmp_path / "probe.json").read_text())["nets"]["nano"]
    names = [layer["name"] for layer in look["layers"]]
    assert names[:3] == ["backbone.conv1", "backbone.conv2", "backbone.conv3"]
    assert any(name.startswith("rpn.") for name in names)
    assert all(layer["gradient"] > 0 and layer["response"] > 0 for layer in look["layers"])


def test_finished_runs_are_compared(tmp_path: Path):
    run = tmp_path / "run"
    assert main(["train", *PATCHES, "train.steps=1", "--output", str(run)]) == 0
    assert main(["probe", "--runs", str(run), "--output", str(tmp_path / "probe")]) == 0
    (look,) = json.loads((tmp_path / "probe/probe.json").read_text())["nets"]["run"]
    assert {layer["update"] for layer in look["layers"]} == {None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a CONFIG to probe nets from their start, or --runs"),
        ([*NANO, "--runs", "somewhere"], "give a CONFIG to probe nets from their start, or --runs"),
        (["--runs", "somewhere", "--norms", "bn"], "--runs are looked at as they were trained"),
        ([*NANO, "--over-training"], "--over-training looks at the checkpoints of --runs; give them"),
        ([*NANO, "--steps", "0"], "--steps 0 --every 5: both must be at least 1"),
        ([*NANO, "--inits", "hee"], "--inits hee is not known; did you mean 'he'?"),
        ([*NANO, "--backbones", "resnet19"], "unknown backbone 'resnet19'; did you mean"),
        (["--runs", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str):
    assert main(["probe", *arguments, "--output", str(tmp_path / "probe")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1
