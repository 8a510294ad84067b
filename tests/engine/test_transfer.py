"""Fine-tuning: what a run takes from another one, and what starts anew, by the names of the classes."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from resdet.config import Config
from resdet.data.batches.loader import open_split
from resdet.engine.checkpoint import checkpoints
from resdet.engine.distributed import World
from resdet.engine.run_folder import MODEL
from resdet.engine.saved_models import load_model
from resdet.engine.train import train
from resdet.engine.train.build import build_state
from resdet.errors import UserError
from resdet.models.backbones.norms import FrozenBatchNorm2d

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "arrow", "heart")
RENAMED = tuple(f"my {name}" for name in SHAPES)
CLASS_LAYERS = {
    f"roi_heads.box_predictor.{layer}.{kind}" for layer in ("cls_score", "bbox_pred") for kind in ("weight", "bias")
}


@pytest.fixture
def source(tmp_path: Path, nano: Config) -> Path:
    nano.train.steps = 2
    run = tmp_path / "source"
    _ = train(nano, run)
    return run


def with_classes(config: Config, folder: Path, names: tuple[str, ...]) -> None:
    """Points the config at its own shapes under other names; fewer names leave out the objects of the last classes."""
    for split in ("train", "val"):
        dataset = open_split(config.data, split)
        content = json.loads(dataset.annotations.read_text())
        kept = sorted(category["id"] for category in content["categories"])[: len(names)]
        content["categories"] = [{"id": number, "name": name} for number, name in zip(kept, names, strict=True)]
        content["annotations"] = [row for row in content["annotations"] if row["category_id"] in kept]
        file = folder / f"{split}.json"
        _ = file.write_text(json.dumps(content))
        chosen = {"train": config.data.train, "val": config.data.val}[split]
        chosen.annotations, chosen.images = str(file), str(dataset.images)


def start(config: Config, names: tuple[str, ...]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors that training would begin with, and what it would say of them."""
    state, _, loaded = build_state(config, names, torch.device("cpu"), World())
    return state.model.state_dict(), loaded


def taken(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> set[str]:
    return {name for name, value in ours.items() if name in theirs and torch.equal(value, theirs[name])}


@pytest.mark.parametrize("kind", ["run", "checkpoint", "file"])
def test_the_same_classes_load_completely(nano: Config, source: Path, kind: str):
    checkpoint = checkpoints(source)[-1]
    nano.model.weights = str({"run": source, "checkpoint": checkpoint, "file": checkpoint / MODEL}[kind])
    ours, loaded = start(nano, SHAPES)
    theirs = load_model(source)[0].state_dict()
    assert taken(ours, theirs) == ours.keys() == theirs.keys()
    assert not any("class layers" in line for line in loaded)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (RENAMED, "8 classes in the file, 8 in the model, and label 0 is 'circle' there, 'my circle' here"),
        (SHAPES[:3], "8 classes in the file, 3 in the model, and label 3 is 'star' there, none here"),
        ((*SHAPES, "moon"), "8 classes in the file, 9 in the model, and label 8 is none there, 'moon' here"),
        ((*SHAPES[:6], "heart", "arrow"), "and label 6 is 'arrow' there, 'heart' here"),
    ],
)
def test_other_classes_start_anew_and_all_else_is_loaded(nano: Config, source: Path, names: tuple[str, ...], said: str):
    nano.model.weights = str(source)
    ours, loaded = start(nano, names)
    theirs = load_model(source)[0].state_dict()
    assert ours.keys() - taken(ours, theirs) == CLASS_LAYERS
    (line,) = [line for line in loaded if "class layers" in line]
    assert "the class layers start anew" in line
    assert said in line
    assert "0 missing, 0 unexpected, 0 mismatched, 4 re-initialised" in loaded[0]


@pytest.mark.parametrize("names", [SHAPES[:3], RENAMED])
def test_a_run_fine_tunes_on_other_classes_from_end_to_end(
    tmp_path: Path, nano: Config, source: Path, names: tuple[str, ...]
):
    with_classes(nano, tmp_path, names)
    nano.model.weights = str(source)
    metrics = train(nano, tmp_path / "tuned")
    assert {f"bbox/AP/{name}" for name in names} <= metrics.keys()
    assert load_model(tmp_path / "tuned")[2] == names
    assert (tmp_path / "tuned/log.txt").read_text().count("the class layers start anew") == 1


@pytest.mark.parametrize("kind", ["run", "checkpoint", "file"])
def test_the_backbone_alone_can_be_taken(nano: Config, source: Path, kind: str):
    checkpoint = checkpoints(source)[-1]
    nano.model.backbone.weights = str({"run": source, "checkpoint": checkpoint, "file": checkpoint / MODEL}[kind])
    ours, loaded = start(nano, SHAPES)
    theirs = load_model(source)[0].state_dict()
    names = {name for name in ours if name.startswith("backbone.")}
    assert names <= taken(ours, theirs)
    assert "rpn.head.cls_logits.weight" not in taken(ours, theirs)
    assert any(line.startswith(f"{checkpoint / MODEL}: {len(names)} matched (100.0 %)") for line in loaded)


def test_frozen_norms_hold_the_statistics_that_batch_norms_had(tmp_path: Path, nano: Config):
    nano.model.backbone.norm, nano.train.steps, nano.train.precise_bn = "bn", 2, 2
    _ = train(nano, tmp_path / "source")
    theirs = load_model(tmp_path / "source")[0].state_dict()
    assert not torch.equal(theirs["backbone.bn1.running_mean"], torch.zeros(16))

    nano.model.backbone.norm, nano.train.precise_bn = "frozen_bn", 0
    for nano.model.weights, nano.model.backbone.weights in (
        (str(tmp_path / "source"), None),
        (None, str(tmp_path / "source")),
    ):
        ours, _ = start(nano, SHAPES)
        norms = {name for name in ours if name.startswith("backbone.bn")}
        assert len(norms) == 3 * 4
        assert norms <= taken(ours, theirs)

    nano.model.weights, nano.model.backbone.weights = str(tmp_path / "source"), None
    _ = train(nano, tmp_path / "tuned")
    tuned = load_model(tmp_path / "tuned")[0]
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in tuned.modules()) == 3
    assert norms <= taken(tuned.state_dict(), theirs)
    assert "never learn" not in (tmp_path / "tuned/log.txt").read_text()


def test_group_norms_have_no_statistics_to_freeze(nano: Config, source: Path):
    nano.model.weights, nano.model.backbone.norm = str(source), "frozen_bn"
    with pytest.raises(UserError, match=r"only the model has batch statistics\); see model\.backbone\.norm"):
        _ = start(nano, SHAPES)


def test_a_resume_with_rates_by_layer_ends_with_the_same_bits(tmp_path: Path, nano: Config):
    nano.optim.backbone_lr, nano.optim.layer_decay = 0.5, 0.1
    nano.train.checkpoint_every = 3
    _ = train(nano, tmp_path / "whole")
    cut = tmp_path / "cut"
    _ = train(nano, cut)
    whole = load_model(tmp_path / "whole")[0].state_dict()
    for leftover in checkpoints(cut)[-1].iterdir():
        leftover.unlink()
    checkpoints(cut)[-1].rmdir()
    _ = train(nano, cut, resume=True)
    assert taken(load_model(cut)[0].state_dict(), whole) == whole.keys()
    log = (cut / "log.txt").read_text()
    assert "resumed from" in log
    assert "learning rates of the layers: 0.005 to 1 times that (optim: backbone_lr=0.5, layer_decay=0.1)" in log


def test_a_backbone_that_does_not_learn_stays_bit_for_bit(tmp_path: Path, nano: Config, source: Path):
    nano.model.weights, nano.optim.backbone_lr = str(source), 0.0
    _ = train(nano, tmp_path / "tuned")
    tuned: nn.Module = load_model(tmp_path / "tuned")[0]
    theirs = load_model(source)[0].state_dict()
    same = taken(tuned.state_dict(), theirs)
    assert {name for name in theirs if name.startswith("backbone.")} <= same
    assert "rpn.head.cls_logits.weight" not in same
