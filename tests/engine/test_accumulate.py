"""An update in parts: the losses, the gradients and the run of the whole batch, up to rounding."""

from pathlib import Path

import pytest
import torch
from exact_resume import assert_resume_is_exact, logged
from process_of_two import BATCHES, MODELS, batch_of, losses_and_gradients
from torch import nn
from torch.testing import assert_close

from resdet.config import Config
from resdet.engine.distributed import World
from resdet.engine.train import train
from resdet.engine.train.accumulate import split, whole_counts
from resdet.engine.train.build import check_setup
from resdet.errors import UserError
from resdet.models.classifier import Classifier
from resdet.models.losses import MeanLoss
from resdet.structures import Batch


@pytest.fixture(scope="module")
def whole() -> dict[str, tuple[dict[str, float], list[torch.Tensor]]]:
    return losses_and_gradients(World())


@pytest.fixture(scope="module")
def in_parts() -> dict[str, tuple[dict[str, float], list[torch.Tensor]]]:
    return losses_and_gradients(World(), parts=4)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("model", MODELS)
def test_four_parts_have_the_losses_and_gradients_of_the_whole_batch(whole, in_parts, model: str, batch: str) -> None:
    losses, gradients = whole[f"{model}, {batch}"]
    theirs, their_gradients = in_parts[f"{model}, {batch}"]
    assert theirs == pytest.approx(losses, rel=1e-5, abs=1e-9)
    assert_close(their_gradients, gradients, rtol=1e-4, atol=1e-6)


def test_the_parts_are_the_images_in_their_order() -> None:
    batch = batch_of("full")
    parts = split(batch, 2)
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert batch.targets is not None
    for part, rows in zip(parts, (slice(0, 2), slice(2, 4)), strict=True):
        assert part.targets is not None
        assert torch.equal(part.targets.boxes, batch.targets.boxes[rows])
        assert torch.equal(part.targets.seeds, batch.targets.seeds[rows])


class Noisy(Classifier):
    """A model whose number of entries depends on its dropout, and which has batch statistics."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.norm = nn.BatchNorm2d(3)

    def mean_losses(self, batch: Batch) -> dict[str, MeanLoss]:
        kept = nn.functional.dropout(self.norm(batch.images.float()), 0.5)
        return {"loss": MeanLoss(kept.sum(), (kept != 0).sum())}


def test_counting_leaves_the_statistics_and_the_draws_as_they_were() -> None:
    model, parts = Noisy(), split(batch_of("full"), 2)
    before, draws = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    counts = whole_counts(model, parts, World())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
    assert counts.item() == sum(model.mean_losses(part)["loss"].count.item() for part in parts), "the same draws follow"
    assert model.norm.num_batches_tracked == 2


def test_a_run_in_parts_is_the_run_of_the_whole_batch_up_to_rounding(tmp_path: Path, nano: Config) -> None:
    nano.train.batch_size = 4
    _ = train(nano, tmp_path / "whole")
    nano.train.accumulate = 2
    _ = train(nano, tmp_path / "parts")
    for one, other in zip(logged(tmp_path / "whole"), logged(tmp_path / "parts"), strict=True):
        if "loss" in one:
            assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
    assert "each update in 2 parts" in (tmp_path / "parts/log.txt").read_text()


def test_a_resumed_run_in_parts_is_exact(tmp_path: Path, nano: Config) -> None:
    nano.train.batch_size, nano.train.accumulate, nano.model.backbone.norm, nano.train.steps = 4, 2, "bn", 4
    _ = assert_resume_is_exact(nano, tmp_path)


def test_parts_that_do_not_divide_a_share_are_an_error(nano: Config) -> None:
    nano.train.batch_size, nano.train.accumulate = 6, 2
    check_setup(nano, World())
    with pytest.raises(UserError, match=r"train.accumulate=2 must divide .* 3 \(train.batch_size=6 over 2 processes\)"):
        check_setup(nano, World(size=2))
    nano.train.batch_size, nano.model.backbone.norm = 2, "bn"
    with pytest.raises(UserError, match="batch normalization with 1 image a process"):
        _ = train(nano, Path("never-written"))
