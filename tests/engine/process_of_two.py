"""A process of several: losses and gradients of its share of a batch, for test_shared_losses.py."""

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resdet.config import load_config
from resdet.engine.distributed import World, average_statistics, batch_norms, join_world, trainable
from resdet.engine.train.accumulate import forwards_of, unsynced
from resdet.engine.train.step import summed_gradients
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.structures import Batch, Targets

NANO = str(Path(__file__).parents[2] / "configs/nano.yaml")
MODELS = {
    "boxes": (),
    "low": ("model.box_head.background_iou_low=0.1", "model.box_head.box_loss_weight=2.0"),
    "masks": ("model.mask_head.channels=8",),
    "cascade": ("model.cascade.ious=[0.5,0.6,0.7]", "model.mask_head.channels=8"),
    "first stage": ("model.box_head=null",),
}
BATCHES = ("full", "empty share", "blank", "empty")
SIDE, SLOTS, IMAGES = 64, 8, 4


def model_of(name: str) -> RCNN:
    _ = torch.manual_seed(0)
    classes = 1 if name == "first stage" else 3
    model = build_model(load_config(NANO, overrides=MODELS[name]).model, num_classes=classes).train()
    return model.requires_grad_(requires_grad=True)


def batch_of(name: str) -> Batch:
    """Four images: with objects; or none in the last two; or a blank (`on_bad_image=skip`) in place of the last; or
    without any object.
    """
    random = torch.Generator().manual_seed(1)
    corner = torch.rand(IMAGES, SLOTS, 2, generator=random) * 40
    boxes = torch.cat([corner, corner + 8 + 16 * torch.rand(IMAGES, SLOTS, 2, generator=random)], dim=-1)
    counts = {"full": [8, 1, 3, 2], "empty share": [8, 2, 0, 0], "blank": [8, 1, 3, 1], "empty": [0] * 4}[name]
    valid = torch.arange(SLOTS) < torch.tensor(counts)[:, None]
    crowd = torch.zeros_like(valid)
    if name == "blank":
        boxes[3, 0], crowd[3, 0] = torch.tensor([-16.0 * SIDE, -16 * SIDE, 16 * SIDE, 16 * SIDE]), True
    masks = torch.randint(0, 256, (IMAGES, SLOTS, 8, 8), dtype=torch.uint8, generator=random)
    masks[0, ::2] = 0  # objects without a mask
    targets = Targets(boxes, torch.zeros(IMAGES, SLOTS, dtype=torch.int64), crowd, valid, torch.arange(IMAGES), masks)
    images = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), dtype=torch.uint8, generator=random)
    return Batch(images, torch.full((IMAGES, 2), SIDE), targets)


def share(batch: Batch, world: World) -> Batch:
    """Contiguous images, as the loader divides a batch."""
    count = IMAGES // world.size
    rows = slice(world.rank * count, (world.rank + 1) * count)
    assert batch.targets is not None
    targets: dict[str, Any] = {field.name: getattr(batch.targets, field.name) for field in fields(Targets)}
    shared: dict[str, Any] = {name: None if value is None else value[rows] for name, value in targets.items()}
    mine = Targets(**shared)
    return Batch(batch.images[rows], batch.sizes[rows], mine)


def losses_and_gradients(world: World, parts: int = 1) -> dict[str, tuple[dict[str, float], list[Tensor]]]:
    """By model and batch: the mean of the losses over the processes, and the gradient of each parameter; each process
    computes its share in so many parts.
    """
    config, exact = (
        load_config(NANO, overrides=[f"train.accumulate={parts}"]).train,
        torch.autocast("cpu", enabled=False),
    )
    found: dict[str, tuple[dict[str, float], list[Tensor]]] = {}
    for model_name in MODELS:
        for batch_name in BATCHES:
            model = model_of(model_name)
            losses_of = trainable(model, config, world)  # it averages the gradients as long as it exists
            mine = share(batch_of(batch_name), world)
            losses = {}
            for _ in range(2 if batch_name == "full" else 1):  # a second pass knows the graph (static_graph)
                forwards = forwards_of(losses_of, model, mine, parts, precision=exact, world=world)
                losses = summed_gradients(forwards, model, exact, unsynced=unsynced(losses_of))
            means = world.mean([loss.item() for loss in losses.values()])
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            found[f"{model_name}, {batch_name}"] = dict(zip(losses, means, strict=True)), gradients
    return found


def statistics(world: World) -> tuple[list[Tensor], list[Tensor]]:
    """Of a batch norm that saw other images in each process: before and after the average."""
    norm = nn.BatchNorm2d(2)
    _ = norm(torch.arange(16.0).view(2, 2, 2, 2) * (1 + 10 * world.rank))
    states = []
    for _ in range(2):
        states.append([each.clone() for layer in batch_norms(norm) for each in layer.buffers()][:2])
        average_statistics(norm, world)
    return states[0], states[1]


def main(output: Path) -> None:
    torch.set_num_threads(1)
    with join_world("cpu") as world:
        result = {
            "steps": losses_and_gradients(world),
            "parts": losses_and_gradients(world, parts=2),
            "statistics": statistics(world),
        }
        torch.save(result, output / f"rank{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
