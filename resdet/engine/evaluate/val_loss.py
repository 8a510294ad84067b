"""The losses of a detector on the val images, as it is used: without augmentation, dropout and batch statistics."""

from __future__ import annotations

import torch

from resdet.config import Config
from resdet.data.batches.loader import evaluation_batches
from resdet.data.sets.coco import CocoDataset
from resdet.engine.distributed import World, autocast, to_device
from resdet.engine.evaluate.detections import Interrupted
from resdet.engine.signals import StopRequest
from resdet.errors import UserError
from resdet.models.rcnn import RCNN


def validation_losses(
    model: RCNN, dataset: CocoDataset, config: Config, *, world: World, stop: StopRequest
) -> dict[str, float | None]:
    """`val/loss` and its parts, `val/loss_NAME`: means over the entries of all images together, from all processes.

    So they do not depend on `eval.batch_size` or the number of processes. The mode of the model does not change. Raises
    Interrupted if `stop` was requested, and UserError in all processes for an image that cannot be read.
    """
    device = next(model.parameters()).device
    masks = config.data.mask_resolution if config.model.mask_head else None
    batches = iter(evaluation_batches(dataset, config, rank=world.rank, world_size=world.size, mask_resolution=masks))
    sums: dict[str, tuple[float, int, float]] = {}
    mode, problem = model.training, None
    _ = model.eval()
    try:
        while (loaded := stop.next(batches)) is not None:
            with torch.inference_mode(), autocast(config.train, device):
                losses = model.mean_losses(to_device(loaded.batch, config.train, device))
            for name, loss in losses.items():
                total, count, _ = sums.get(name, (0.0, 0, loss.weight))
                sums[name] = (total + float(loss.total), count + int(loss.count), loss.weight)
    except UserError as error:
        problem = error
    finally:
        _ = model.train(mode)
    if world.any(stop.requested):
        raise Interrupted
    world.raise_together(problem)
    return _means(world.gather(sums))


def _means(shares: list[dict[str, tuple[float, int, float]]]) -> dict[str, float | None]:
    names = dict.fromkeys(name for share in shares for name in share)
    parts: dict[str, float | None] = {}
    for name in names:
        rows = [share[name] for share in shares if name in share]
        total, count = sum(row[0] for row in rows), sum(row[1] for row in rows)
        parts[f"val/{name}"] = rows[0][2] * total / max(count, 1)
    return {"val/loss": sum(value for value in parts.values() if value is not None), **parts}
