"""The first step that is not finite: what was at fault is named, by poisoning each thing that can be."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_distributed import in_processes
from torch import Tensor

from resdet.config import Config
from resdet.data.batches.collate import ImageInfo, LoadedBatch
from resdet.engine.checkpoint import MODEL, checkpoint_path, read_model_file
from resdet.engine.task.detection import Detection
from resdet.engine.train import train, update
from resdet.engine.train.divergence import Findings, Past, bad_inputs, causes_of, stage_of
from resdet.engine.train.state import TrainState
from resdet.errors import UserError
from resdet.models.losses import MeanLoss
from resdet.models.rcnn import RCNN
from resdet.structures import Batch, Targets

FIRST = "likely cause 1: "


def poison_weights(monkeypatch: pytest.MonkeyPatch, at: int, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Changes the weights before step `at`."""
    real = update.update

    def poisoned(state: TrainState, *rest: Any) -> dict[str, float]:
        if state.step == at:
            change(state.model.state_dict())
        return real(state, *rest)

    monkeypatch.setattr("resdet.engine.train.loop.update", poisoned)


def poison_batches(monkeypatch: pytest.MonkeyPatch, at: int, change: Callable[[LoadedBatch], LoadedBatch]) -> None:
    real = Detection.training_batches

    def batches(self: Detection, *arguments: Any, start_step: int, **rest: Any) -> Iterator[LoadedBatch]:
        for step, loaded in enumerate(real(self, *arguments, start_step=start_step, **rest), start_step):
            yield change(loaded) if step == at else loaded

    monkeypatch.setattr(Detection, "training_batches", batches)


def with_pixel(value: float) -> Callable[[LoadedBatch], LoadedBatch]:
    """One pixel of the second image."""

    def change(loaded: LoadedBatch) -> LoadedBatch:
        images = loaded.batch.images.float()
        images[1, 0, 5, 5] = value
        return replace(loaded, batch=replace(loaded.batch, images=images))

    return change


def with_box(value: float) -> Callable[[LoadedBatch], LoadedBatch]:
    """The right edge of the first box of the second image."""

    def change(loaded: LoadedBatch) -> LoadedBatch:
        assert loaded.batch.targets is not None
        boxes = loaded.batch.targets.boxes.clone()
        boxes[1, 0, 2] = value
        return replace(loaded, batch=replace(loaded.batch, targets=replace(loaded.batch.targets, boxes=boxes)))

    return change


def diverged(nano: Config, run: Path) -> tuple[str, str, dict[str, Any]]:
    """The error, the log and bad_step.json of a run that ends with a loss that is not finite."""
    with pytest.raises(UserError) as error:
        _ = train(nano, run)
    assert str(error.value).isprintable()
    return str(error.value), (run / "log.txt").read_text(), json.loads((run / "bad_step.json").read_text())


def test_a_poisoned_weight_is_named_with_the_first_module_that_it_reaches(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        _ = weights["rpn.head.conv.0.0.weight"][0, 0, 0, 0].fill_(math.nan)

    poison_weights(monkeypatch, 3, change)
    error, log, kept = diverged(nano, tmp_path / "run")
    assert error.startswith("step 3: loss_objectness is nan")
    assert "likely an update before this one wrote rpn.head.conv.0.0.weight, which is not finite" in error
    assert "step 3: the first module whose output is not finite: rpn.head.conv.0.0\n" in log
    assert kept["findings"]["bad_weights"] == ["rpn.head.conv.0.0.weight"]
    assert kept["findings"]["module"] == "rpn.head.conv.0.0"
    assert kept["not_finite"] == "loss"
    assert len(kept["images"]) == 2


def test_a_poisoned_weight_before_the_first_update_was_loaded(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(weights: dict[str, Tensor]) -> None:
        _ = weights["backbone.conv1.weight"].fill_(math.inf)

    poison_weights(monkeypatch, 0, change)
    error, _, _ = diverged(nano, tmp_path / "run")
    assert "likely the weights that were loaded: backbone.conv1.weight not finite; load others" in error


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_poisoned_image_is_named_and_its_batch_is_kept(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    poison_batches(monkeypatch, 2, with_pixel(value))
    error, log, kept = diverged(nano, tmp_path / "run")
    batch = torch.load(tmp_path / "run/bad_step_rank0.pt", weights_only=True)
    image, name = batch["image_ids"][1], batch["file_names"][1]
    assert f"likely the data: image id {image} ({name}) has pixels that are not finite" in error
    assert kept["findings"]["bad_images"] == [image]
    assert f"1 of 2 images alone give no finite step: ids {image}" in log
    assert not math.isfinite(batch["images"][1, 0, 5, 5])
    assert batch["step"] == 2
    assert batch["targets"]["boxes"].shape[:2] == batch["targets"]["valid"].shape


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e18])
def test_a_poisoned_label_does_not_reach_the_weights(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Nothing matches a box that is not finite, and the slope of the loss of one that is too large is 1."""
    poison_batches(monkeypatch, 2, with_box(value))
    nano.train.grad_clip, nano.train.steps = None, 4
    _ = train(nano, tmp_path / "run")
    weights = read_model_file(checkpoint_path(tmp_path / "run", 4) / MODEL).weights
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_poisoned_label_is_named_where_it_does_harm(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of a user's own may take such a box: here the mean of all coordinates is part of it."""
    real = RCNN.mean_losses

    def losses(self: RCNN, batch: Batch) -> dict[str, MeanLoss]:
        found = real(self, batch)
        assert batch.targets is not None
        return found | {"loss_own": MeanLoss(batch.targets.boxes.mean() * 1e-6, torch.tensor(1))}

    monkeypatch.setattr(RCNN, "mean_losses", losses)
    poison_batches(monkeypatch, 2, with_box(math.nan))
    error, log, kept = diverged(nano, tmp_path / "run")
    image = kept["findings"]["bad_images"][0]
    assert error.startswith("step 2: loss_own is nan")
    assert f"likely the data: image id {image} (" in error
    assert "): box 0 is [" in error
    assert "the first module whose output is not finite: the losses" in log


def test_boxes_that_are_not_finite_are_found_in_a_batch() -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 9], [0, 0, math.nan, 9], [0, 0, math.inf, 9]]])
    valid = torch.tensor([[True, True, False]])
    none = torch.zeros(1, 3, dtype=torch.bool)
    targets = Targets(boxes, torch.zeros(1, 3, dtype=torch.int64), none, valid, torch.zeros(1, dtype=torch.int64))
    batch = Batch(torch.zeros(1, 3, 9, 9), torch.tensor([[9, 9]]), targets)
    image = ImageInfo(image_id=7, file_name="a.jpg", height=9, width=9, scale_y=1.0, scale_x=1.0)
    assert bad_inputs(batch, [image]) == ["image id 7 (a.jpg): box 1 is [0.0, 0.0, nan, 9.0]"]


def test_a_learning_rate_that_is_much_too_high_is_the_first_cause(tmp_path: Path, nano: Config) -> None:
    nano.optim.lr, nano.optim.warmup_steps, nano.train.grad_clip, nano.train.steps = 1e6, 0, None, 30
    error, log, kept = diverged(nano, tmp_path / "run")
    assert "lower optim.lr or lengthen optim.warmup_steps" in error
    assert kept["causes"][0].startswith("the learning rate: ")
    assert f"{FIRST}the learning rate: " in log


def test_a_gradient_that_is_not_finite_names_its_parameter_and_the_norms_of_the_other_stages(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resdet.models.rpn import RPN

    real = RPN.losses

    def losses(self: RPN, *arguments: Any) -> dict[str, Any]:
        found = real(self, *arguments)
        weight = next(self.parameters())
        total = found["loss_objectness"].total + (weight * 0).sqrt().sum()  # 0, with an infinite gradient
        return found | {"loss_objectness": replace(found["loss_objectness"], total=total)}

    monkeypatch.setattr(RPN, "losses", losses)
    nano.train.steps = 30
    with pytest.raises(UserError, match=r"10 gradients in a row were not finite; likely "):
        _ = train(nano, tmp_path / "run")
    log, kept = (tmp_path / "run/log.txt").read_text(), json.loads((tmp_path / "run/bad_step.json").read_text())
    assert "the gradient is not finite from rpn." in log
    assert "gradient norms by stage" in log
    assert kept["not_finite"] == "gradient"
    assert kept["findings"]["module"] is None
    norms = kept["findings"]["gradients"]
    assert norms["rpn.head"] in ("nan", "inf")
    assert {"backbone.conv1", "neck.inner_blocks", "roi_heads.box_head"} <= norms.keys()
    assert all(isinstance(norms[stage], float) for stage in norms if stage.startswith("roi_heads"))
    assert log.count("gradient norms by stage") == 2, "the first, and the one before the error"


def test_half_precision_is_the_cause_where_float32_is_finite() -> None:
    (cause,) = causes_of(Findings(module="neck", half=True), [], updates=5)
    assert cause.startswith("half precision: in float32 all is finite; set train.amp=off")


def test_causes_come_in_their_order() -> None:
    found = Findings(
        module="x", bad_weights=["fc.weight"], bad_inputs=["image id 3 (a.jpg): box 0 is [nan]"], half=True, images=2
    )
    losses = [1.0, 1.0, 1.0, 40.0, 50.0]
    recent = [Past(step, loss, 2.0, (10 * step, 10 * step + 1)) for step, loss in enumerate(losses)]
    causes = causes_of(found, recent, updates=6)
    assert [cause.split(":")[0].split(" wrote")[0] for cause in causes] == [
        "the data", "an update before this one", "half precision", "the learning rate",
    ]  # fmt: skip
    assert "the loss grew from 1 to 50, and most in step 3 (image ids 30, 31: look" in causes[3]
    assert causes_of(Findings(module="x"), [], updates=3)[0].startswith("no sign of another cause")


def test_a_stage_is_the_beginning_of_a_parameters_name() -> None:
    names = ["backbone.layer1.0.conv1.weight", "backbone.conv1.weight", "rpn.conv.bias", "scale"]
    assert [stage_of(name) for name in names] == ["backbone.layer1", "backbone.conv1", "rpn.conv", "scale"]


def test_a_dry_run_examines_and_writes_nothing(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poison_batches(monkeypatch, 1, with_pixel(math.nan))
    with pytest.raises(UserError, match=r"has pixels that are not finite"):
        _ = train(nano, tmp_path / "dry", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    assert FIRST in capsys.readouterr().out


def test_two_processes_examine_their_shares_and_say_it_once(tmp_path: Path, nano_arguments: list[str]) -> None:
    config, *rest = [*nano_arguments, "train.batch_size=4", "optim.lr=1e7", "optim.warmup_steps=0"]
    rest += ["train.grad_clip=null", "train.steps=30", "--output", str(tmp_path / "two")]
    done = in_processes(2, [config, *rest])
    assert [process.returncode for process in done] == [2, 2]
    lines = [line for process in done for line in process.stderr.splitlines() if line.startswith("error: ")]
    (line,) = lines
    assert "lower optim.lr or lengthen optim.warmup_steps" in line
    kept = json.loads((tmp_path / "two/bad_step.json").read_text())
    assert len(kept["images"]) == kept["findings"]["images"] == 4
    shares = [torch.load(tmp_path / f"two/bad_step_rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert [image["image_id"] for image in kept["images"]] == [i for share in shares for i in share["image_ids"]]
