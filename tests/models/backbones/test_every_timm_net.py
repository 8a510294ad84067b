"""All names of timm: each is a backbone, its maps and parameters in their places, or is refused in one line."""

from __future__ import annotations

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


@pytest.mark.slow
@pytest.mark.parametrize("name", timm.list_models())
def test_a_name_of_timm_is_a_backbone_or_refused_in_one_line(name: str) -> None:
    with torch.device("meta"), torch.no_grad():
        backbone, refusal = built(name)
        if backbone is None:
            assert len(refusal.splitlines()) == 1
            return
        maps = backbone.eval()(torch.empty(1, 3, 70, 93))
    sizes = [(18, 24), (9, 12), (5, 6), (3, 3)]  # ceil(70 / stride), ceil(93 / stride)
    shapes = [(1, channels, *size) for channels, size in zip(backbone.channels, sizes, strict=True)]
    assert [tuple(level.shape) for level in maps] == shapes
    grouped = [parameter for _, stage in backbone.stages() for parameter in stage.parameters()]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(backbone.parameters())
