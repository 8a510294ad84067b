"""Evaluates a classifier: the fraction of wrongly classified images, and the cross entropy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from resdet.config import Config
from resdet.data.batches import photos
from resdet.data.batches.collate import LoadedBatch
from resdet.data.batches.photos import Views
from resdet.data.sets import labelled
from resdet.data.sets.labelled import LabelledImages
from resdet.data.sets.labelled_files import LabelledFiles
from resdet.engine.distributed import World, autocast, to_device
from resdet.engine.evaluate.detections import Interrupted
from resdet.engine.signals import StopRequest

EVALUATED_AT_ONCE = 256  # images per batch of images in memory; they are small, so eval.batch_size is not used
TOP = 5  # guesses of an image, as in ILSVRC

LabelledSet = LabelledImages | LabelledFiles


def evaluate_classifier(
    model: nn.Module,
    train_set: LabelledSet,
    val_set: LabelledSet,
    config: Config,
    *,
    views: Views | None = None,
    world: World | None = None,
    stop: StopRequest | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float | None]:
    """`top1/error`, `top1/accuracy`, `top1/loss` (cross entropy) and, of more than five classes, `top5/error` on the
    val set, without augmentation.

    The probabilities of an image file are the mean over `views`, by default the central square. With
    `eval.train_images`, also `train/error` and `train/loss` on this number of training images. Images that could not be
    read (data.on_bad_image=skip) are left out. The mode of the model does not change. Raises Interrupted if `stop` was
    requested.
    """
    world, stop = world or World(), stop or StopRequest()
    views = views or central_square(config)
    error, top5, loss = _errors_and_loss(model, val_set, config, views, world, stop, progress)
    figures: dict[str, float | None] = {"top1/error": error, "top1/accuracy": 1 - error, "top1/loss": loss}
    if len(val_set.class_names) > TOP:
        figures["top5/error"] = top5
    if config.eval.train_images:
        part = train_set.first(config.eval.train_images)
        error, _, loss = _errors_and_loss(model, part, config, views, world, stop, progress)
        figures |= {"train/error": error, "train/loss": loss}
    return figures


def central_square(config: Config) -> Views:
    return Views(config.data.augment.crop, (config.data.augment.test_short_side,))


def configured_views(config: Config) -> Views:
    """The views that `config.test` asks for."""
    test, augment = config.test, config.data.augment
    more = test.augmentation
    sides = (more.short_sides if more else None) or [augment.test_short_side]
    return Views(augment.crop, tuple(sides), test.crops, flip=bool(more and more.flip and test.crops != "ten"))


def _errors_and_loss(
    model: nn.Module,
    dataset: LabelledSet,
    config: Config,
    views: Views,
    world: World,
    stop: StopRequest,
    progress: Callable[[int, int], None] | None,
) -> tuple[float, float, float]:
    """Top-1 error, top-5 error and loss: means over all images, from all processes together; every process receives
    them.
    """
    device = next(model.parameters()).device
    expected, batches = _batches(dataset, config, views, world)
    scales = len(views.short_sides) if isinstance(dataset, LabelledFiles) else 1
    sums = torch.zeros(4, dtype=torch.float64)
    summed, done = torch.zeros(()), 0
    mode = model.training
    _ = model.eval()
    try:
        while (loaded := stop.next(batches)) is not None:
            with torch.inference_mode(), autocast(config.train, device):
                rows: Tensor = model.predict(to_device(loaded.batch, config.train, device)).cpu()  # pyright: ignore[reportCallIssue]
            per_image = rows.unflatten(0, (-1, _views_of_first(loaded)))
            summed = per_image.mean(1) + (summed if done % scales else 0)  # an image's scales come one after another
            done += 1
            if done % scales == 0:
                sums += torch.tensor(_counted(summed / scales, *_labels(loaded, len(summed))))
            if progress:
                progress(done, expected)
    finally:
        _ = model.train(mode)
    if world.any(stop.requested):
        raise Interrupted
    wrong, wrong5, loss, count = world.mean(sums.tolist())
    return wrong / count, wrong5 / count, loss / count


def _batches(dataset: LabelledSet, config: Config, views: Views, world: World) -> tuple[int, Iterator[LoadedBatch]]:
    """The number of batches of this process, or nearly, and the batches."""
    if isinstance(dataset, LabelledFiles):
        return photos.evaluation_batches(dataset, config, views, rank=world.rank, world_size=world.size)
    expected = -(-len(dataset) // (EVALUATED_AT_ONCE * world.size))
    return expected, labelled.evaluation_batches(
        dataset, batch_size=EVALUATED_AT_ONCE, rank=world.rank, world_size=world.size
    )


def _views_of_first(loaded: LoadedBatch) -> int:
    """The number of views of each image in a batch, whose rows are ordered by image."""
    return sum(image.image_id == loaded.images[0].image_id for image in loaded.images)


def _labels(loaded: LoadedBatch, images: int) -> tuple[Int64[Tensor, " N"], Bool[Tensor, " N"]]:
    """The label of each image, and whether the image could be read."""
    assert loaded.batch.targets is not None
    labels, valid = (each.view(images, -1)[:, 0] for each in (loaded.batch.targets.labels, loaded.batch.targets.valid))
    return labels, valid


def _counted(
    probabilities: Float[Tensor, "N K"], labels: Int64[Tensor, " N"], valid: Bool[Tensor, " N"]
) -> tuple[float, float, float, float]:
    """Images that are wrong at the first guess, wrong at the first five, their cross entropy, and their number."""
    probabilities, labels = probabilities[valid], labels[valid]
    guesses = probabilities.topk(min(TOP, probabilities.shape[1]), dim=1).indices
    right = guesses == labels[:, None]
    loss = F.nll_loss(probabilities.clamp(min=1e-30).log(), labels, reduction="sum")
    wrong = float((probabilities.argmax(dim=1) != labels).sum())
    return wrong, float((~right.any(dim=1)).sum()), float(loss), float(len(labels))
