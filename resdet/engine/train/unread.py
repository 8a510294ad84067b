"""An update whose result has not been read yet, and what is needed to examine it if it was not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from resdet.data.batches.collate import ImageInfo
from resdet.engine.train.step import Result
from resdet.structures import Batch


@dataclass(frozen=True)
class Kept:
    """A process's share of the batch of update number `step`, and how its losses are computed."""

    step: int
    losses_of: nn.Module
    batch: Batch
    images: Sequence[ImageInfo]
    precision: torch.autocast


@dataclass(frozen=True)
class Unread:
    """The result of an update with the learning rate `lr`, and its batch."""

    result: Result
    kept: Kept
    lr: float
