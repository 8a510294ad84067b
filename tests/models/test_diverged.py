"""A net whose weights are no numbers any more has losses that say so, and nothing to predict."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resdet.config import load_config
from resdet.models.build.detector import build_model
from resdet.structures import Batch, Targets

NANO = Path(__file__).parents[2] / "configs" / "nano.yaml"


@pytest.mark.parametrize("pooling", ["roi_align", "roi_pool"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_a_diverged_net_has_losses_that_are_not_finite(pooling: str, sampling_ratio: int) -> None:
    keys = [f"model.box_head.pooling={pooling}", f"model.box_head.sampling_ratio={sampling_ratio}"]
    model = build_model(load_config(NANO, overrides=keys).model, 3)
    for parameter in model.parameters():
        _ = parameter.detach().fill_(float("nan"))
    valid = torch.tensor([[True]])
    targets = Targets(
        boxes=torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]),
        labels=torch.tensor([[1]]),
        crowd=~valid,
        valid=valid,
        seeds=torch.tensor([5]),
    )
    batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.tensor([[64, 64]]), targets)
    assert not torch.stack(list(model(batch).values())).isfinite().any()
    assert not model.eval().predict(batch).valid.any()
