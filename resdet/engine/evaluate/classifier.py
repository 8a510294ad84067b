"""Evaluates a classifier: the fraction of wrongly classified images, and the cross entropy."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdet.config import Config
from resdet.data.sets.labelled import LabelledImages, evaluation_batches
from resdet.engine.distributed import World, autocast, to_device
from resdet.engine.evaluate.detections import Interrupted
from resdet.engine.signals import StopRequest

EVALUATED_AT_ONCE = 256  # images per batch; they are small, so eval.batch_size of the detectors is not used


def evaluate_classifier(
    model: nn.Module,
    train_set: LabelledImages,
    val_set: LabelledImages,
    config: Config,
    *,
    world: World | None = None,
    stop: StopRequest | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float | None]:
    """`top1/error`, `top1/accuracy` and `top1/loss` (cross entropy) on the val set, without augmentation.

    With `eval.train_images`, also `train/error` and `train/loss` on this number of training images, without
    augmentation. The mode of the model does not change. Raises Interrupted if `stop` was requested.
    """
    world, stop = world or World(), stop or StopRequest()
    error, loss = _error_and_loss(model, val_set, config, world, stop, progress)
    figures: dict[str, float | None] = {"top1/error": error, "top1/accuracy": 1 - error, "top1/loss": loss}
    if config.eval.train_images:
        part = train_set.first(config.eval.train_images)
        figures["train/error"], figures["train/loss"] = _error_and_loss(model, part, config, world, stop, progress)
    return figures


def _error_and_loss(
    model: nn.Module,
    dataset: LabelledImages,
    config: Config,
    world: World,
    stop: StopRequest,
    progress: Callable[[int, int], None] | None,
) -> tuple[float, float]:
    """The means over all images, from all processes together; every process receives them."""
    device = next(model.parameters()).device
    batches = evaluation_batches(dataset, batch_size=EVALUATED_AT_ONCE, rank=world.rank, world_size=world.size)
    expected = -(-len(dataset) // (EVALUATED_AT_ONCE * world.size))
    wrong = loss = 0.0
    done = 0
    mode = model.training
    _ = model.eval()
    try:
        while (loaded := stop.next(batches)) is not None:
            assert loaded.batch.targets is not None
            labels = loaded.batch.targets.labels.squeeze(1)
            with torch.inference_mode(), autocast(config.train, device):
                probabilities: Tensor = model.predict(to_device(loaded.batch, config.train, device)).cpu()  # pyright: ignore[reportCallIssue]
            wrong += int((probabilities.argmax(dim=1) != labels).sum())
            loss += float(F.nll_loss(probabilities.clamp(min=1e-30).log(), labels, reduction="sum"))
            done += 1
            if progress:
                progress(done, expected)
    finally:
        _ = model.train(mode)
    if world.any(stop.requested):
        raise Interrupted
    wrong, loss = (total * world.size / len(dataset) for total in world.mean([wrong, loss]))
    return wrong, loss
