"""All names of timm: each is a backbone, its maps and parameters in their places, or is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from resdet.errors import UserError
from resdet.models.backbones import Backbone, build_backbone


def built(name: str) -> tuple[Backbone | None, str]:
    """The backbone, or the reason why it is refused."""
    try:
        return build_backbone(f"timm/{name}", norm="bn", frozen_stages=1), ""
    except UserError as error:
        return None, str(error)


FITTING: list[str] = []
REFUSED: list[str] = []


@pytest.mark.slow
@pytest.mark.parametrize("name", timm.list_models())
def test_a_name_of_timm_is_a_backbone_or_refused_in_one_line(name: str) -> None:
    with torch.device("meta"), torch.no_grad():
        backbone, refusal = built(name)
        if backbone is None:
            assert len(refusal.splitlines()) == 1
            REFUSED.append(name)
            return
        maps = backbone.eval()(torch.empty(1, 3, 70, 93))
    sizes = [(18, 24), (9, 12), (5, 6), (3, 3)]  # ceil(70 / stride), ceil(93 / stride)
    shapes = [(1, channels, *size) for channels, size in zip(backbone.channels, sizes, strict=True)]
    assert [tuple(level.shape) for level in maps] == shapes
    grouped = [parameter for _, stage in backbone.stages() for parameter in stage.parameters()]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(backbone.parameters())
    FITTING.append(name)


@pytest.mark.slow
def test_as_many_fit_as_the_documentation_says() -> None:
    """Counted over the tests above, which must all have run in this process."""
    names = timm.list_models()
    if timm.__version__ != "1.0.31" or len(FITTING) + len(REFUSED) < len(names):
        pytest.skip("needs timm 1.0.31 and all names")
    said = (Path(__file__).parents[3] / "docs/backbones.md").read_text(encoding="utf-8")
    assert f"({len(FITTING)} of {len(names):,}, see below)" in said
