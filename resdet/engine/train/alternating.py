"""Alternating training, as in the first Faster R-CNN: only some parts are trained, on proposals of another detector
(Ren et al. 2015, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from resdet.config import Config
from resdet.engine.distributed import World, trainable
from resdet.engine.saved_models import built, place, read_models
from resdet.engine.train.recompute import recompute_blocks
from resdet.errors import UserError, did_you_mean
from resdet.models.classifier import Classifier
from resdet.models.rcnn import RCNN
from resdet.structures import Batch

PARTS = ("backbone", "neck", "rpn", "roi_heads")


class OnProposals(nn.Module):
    """The losses of a model on the proposals of another model, which is not trained."""

    def __init__(self, losses_of: nn.Module, proposer: RCNN) -> None:
        super().__init__()
        self.losses_of = losses_of
        self.propose = proposer.propose  # not registered as a submodule: it stays in evaluation mode

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses_of(self.with_proposals(batch))

    @torch.no_grad()
    def with_proposals(self, batch: Batch) -> Batch:
        return replace(batch, proposals=self.propose(replace(batch, targets=None)))


def losses_module(model: RCNN | Classifier, config: Config, world: World, device: torch.device) -> nn.Module:
    """The model as it is trained; it uses the proposals of `train.proposals` if that is given."""
    recompute_blocks(model, config)
    losses_of = trainable(model, config.train, world)
    if config.train.proposals is None:
        return losses_of
    (saved,) = read_models([Path(config.train.proposals)], ())
    proposer = built(saved)
    _ = place(proposer, device, config.train).requires_grad_(requires_grad=False)
    return OnProposals(losses_of, proposer)


def choose_parts(model: nn.Module, config: Config) -> None:
    """Freezes all parts except `train.parts`; with `train.proposals` also the first stage, which is not used.

    Raises UserError for an unknown part, and for a frozen part whose batch statistics would change.
    """
    parts: Sequence[str] = PARTS if config.train.parts is None else config.train.parts
    for part in parts:
        if part not in PARTS:
            raise UserError(f"train.parts names {part!r}, which is no part{did_you_mean(part, PARTS)}")
    if config.train.proposals is not None:
        if not isinstance(model, RCNN) or model.roi_heads is None:
            raise UserError("train.proposals teach a second stage, which this model does not have; set it to null")
        parts = [part for part in parts if part != "rpn"]
    for name in PARTS:
        part = getattr(model, name, None)
        if part is None or name in parts:
            continue
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in part.modules()):
            raise UserError(
                f"train.parts leaves out {name}, whose batch norms would still move; set model.{name}.norm=frozen_bn"
            )
        _ = part.requires_grad_(requires_grad=False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"train.parts={list(parts)} leaves nothing to learn; name one of {', '.join(PARTS)}")
