"""The losses, gradients and statistics of a batch do not depend on the number of processes that divide it."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from process_of_two import BATCHES, MODELS, losses_and_gradients
from torch.testing import assert_close

from resdet.engine.distributed import World
from resdet.models.losses import MeanLoss

SCRIPT = Path(__file__).parent / "process_of_two.py"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(folder)], env=os.environ | address | {"RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return losses_and_gradients(World())


@pytest.fixture(scope="module", params=["steps", "parts"])
def way(request: pytest.FixtureRequest) -> str:
    """Each process computes its share at once, or (train.accumulate) in two parts."""
    return request.param


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("model", MODELS)
def test_two_processes_have_the_losses_and_gradients_of_one(
    one: dict[str, Any], two: list[dict[str, Any]], way: str, model: str, batch: str
) -> None:
    losses, gradients = one[f"{model}, {batch}"]
    for rank in range(2):
        theirs, their_gradients = two[rank][way][f"{model}, {batch}"]
        assert theirs == pytest.approx(losses, rel=1e-5, abs=1e-9)
        assert_close(their_gradients, gradients, rtol=1e-4, atol=1e-6)


def test_the_batches_differ_in_what_they_divide_by(one: dict[str, Any]) -> None:
    """Otherwise the comparison above would hold also for means of means."""
    losses = [one[f"masks, {batch}"][0]["loss_mask"] for batch in BATCHES]
    assert len(set(losses)) == len(losses)
    assert losses[-1] == 0


def test_each_process_ends_with_the_mean_of_all_statistics(two: list[dict[str, Any]]) -> None:
    (before, after), (other_before, other_after) = (found["statistics"] for found in two)
    assert not torch.equal(before[0], other_before[0])
    assert_close(after, [(mine + its) / 2 for mine, its in zip(before, other_before, strict=True)])
    assert all(torch.equal(mine, its) for mine, its in zip(after, other_after, strict=True))


def test_a_loss_over_shares_averages_to_the_loss_of_all() -> None:
    """Sums 6 of 1 entry and 2 of 3 entries: 8 over 4, not the mean of 6 and 2/3."""
    shares = [MeanLoss(torch.tensor(6.0), torch.tensor(1), 0.5), MeanLoss(torch.tensor(2.0), torch.tensor(3), 0.5)]
    values = [share.over(torch.tensor(4), shares=2) for share in shares]
    assert sum(value.item() for value in values) / 2 == 8 / 4 * 0.5
    assert MeanLoss(torch.tensor(0.0), torch.tensor(0)).over(torch.tensor(0), shares=2) == 0
