"""Evaluates a detector: detections of a whole data set, in original pixels and with category ids, and their figures."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from resdet.coco.run_lengths import encode_masks
from resdet.config import Config, checked, has_no_classes
from resdet.data.batches.collate import ImageInfo, boxes_in_original
from resdet.data.batches.loader import evaluation_batches, open_split, subset
from resdet.data.sets.coco import CocoDataset
from resdet.engine.distributed import World, autocast, to_device
from resdet.engine.signals import StopRequest
from resdet.errors import UserError, row_of
from resdet.evaluation.coco import COCO_LIMITS, CocoResults, GroundTruth
from resdet.evaluation.metrics import METRICS, Metric, Scoring
from resdet.structures import Batch, Detections
from resdet.test_time.build import build_detector

BATCHES_AHEAD = 4  # detections whose masks may wait for encoding while the model continues


class Interrupted(Exception):
    """A signal arrived during an evaluation, in this process or another."""


def evaluated_set(config: Config) -> CocoDataset:
    """The images on which a detector is evaluated: the val set, or with `train.overfit` the training images."""
    if config.train.overfit is not None:
        return subset(open_split(config.data, "train"), config.train.overfit)
    return open_split(config.data, "val")


def evaluate(
    model: nn.Module,
    dataset: CocoDataset,
    config: Config,
    *,
    results: CocoResults | None = None,
    world: World | None = None,
) -> dict[str, float | None]:
    """The 12 figures of COCO and those of each class: `bbox/AP` ..., in [0, 1], None where undefined.

    With a mask head the same again as `segm/AP` ..., of those images whose objects all have a mask; left out where no
    object has one (`scoring_notes`). With another eval.metric also the figures of that row of METRICS (voc07, voc12:
    `voc/AP50` and its classes).
    Of a model without a second stage the recall of its proposals instead: `recall/AR100` ...
    `results` are detections that `predict_dataset` collected before; without them the model makes them, with the parts
    of `config.test` added. The model stays on its device and in its mode. In several processes each predicts its share,
    and all get the figures.
    """
    config, world = checked(config), world or World()
    if results is None:
        detector = build_detector([model], config).train(model.training)
        results = predict_dataset(detector, dataset, config, world=world)
    figures = None
    if world.leads:
        ground_truth = dataset.ground_truth(count_skipped=config.eval.count_skipped)
        figures = figures_of(results, ground_truth, dataset, config)
    figures = world.from_lead(figures)
    assert figures is not None
    return figures


def figures_of(
    results: CocoResults, ground_truth: GroundTruth, dataset: CocoDataset, config: Config
) -> dict[str, float | None]:
    """The figures that fit the model's parts, as `evaluate` names them."""
    how = Scoring(images_to_score(dataset, results, config), backend=config.eval.backend)
    if has_no_classes(config.model):
        return METRICS["recall"].score(ground_truth, results, how)
    figures = METRICS["coco"].score(ground_truth, results, how)
    if config.model.mask_head and dataset.segmentations.present().any():
        figures |= METRICS["coco"].score(ground_truth, results, replace(how, iou_type="segm"))
    if config.eval.metric != "coco":
        figures |= chosen_metric(config).score(ground_truth, results, how)
    return figures


def images_to_score(dataset: CocoDataset, results: CocoResults, config: Config) -> list[int]:
    """Ids of the images that the figures count: those that exist and can be read, or with `eval.count_skipped` all."""
    counted = config.eval.count_skipped
    images = dataset.scored_images(count_skipped=counted)
    return [number for number in images if counted or number not in results.unreadable]


def chosen_metric(config: Config) -> Metric:
    """The row that `eval.metric` names. Raises UserError for a name without one."""
    return row_of(METRICS, config.eval.metric, "eval.metric")


def predict_dataset(
    model: nn.Module,
    dataset: CocoDataset,
    config: Config,
    *,
    category_ids: Int64[np.ndarray, " K"] | None = None,
    world: World | None = None,
    stop: StopRequest | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CocoResults:
    """The model's detections on every image once, from all processes together; every process receives them.

    `category_ids` are the ids of the model's labels (default: the data set's). `progress` receives the number of
    finished batches of this process and their total.

    Raises Interrupted if `stop` was requested, and UserError in all processes for an image that cannot be read.
    """
    world, stop = world or World(), stop or StopRequest()
    device = next(model.parameters()).device
    results, done = CocoResults(), 0
    mode = model.training
    _ = model.eval()
    batches = iter(evaluation_batches(dataset, config, rank=world.rank, world_size=world.size))
    share = math.ceil(len(dataset) / (config.eval.batch_size * world.size))
    category_ids = dataset.category_ids if category_ids is None else category_ids
    waiting: deque[Future[CocoResults]] = deque()
    problem: UserError | None = None
    with ThreadPoolExecutor(1) as encoder:
        try:
            while (loaded := stop.next(batches)) is not None:
                with torch.inference_mode(), autocast(config.train, device):
                    detections = predict_batch(model, to_device(loaded.batch, config.train, device))
                detections = detections.to("cpu")  # the only copy from the device
                results.unreadable |= loaded.unreadable
                waiting.append(encoder.submit(batch_results, detections, loaded.images, category_ids))
                if len(waiting) > BATCHES_AHEAD:
                    results.extend([waiting.popleft().result()])
                done += 1
                if progress:
                    progress(done, share)
        except UserError as error:
            problem = error
        finally:
            _ = model.train(mode)
        results.extend([batch.result() for batch in waiting])
    if world.any(stop.requested):
        raise Interrupted
    world.raise_together(problem)
    shares = world.gather(results)
    results = CocoResults()
    results.extend(shares)
    return results


def predict_batch(model: nn.Module, batch: Batch) -> Detections:
    """`model.predict`; the type of nn.Module does not declare it."""
    detections = model.predict(batch)  # pyright: ignore[reportCallIssue]
    assert isinstance(detections, Detections)
    return detections


def batch_results(
    detections: Detections, images: tuple[ImageInfo, ...], category_ids: Int64[np.ndarray, " K"]
) -> CocoResults:
    """A batch's valid detections in pixels of the original images, and their masks as run lengths."""
    results = CocoResults()
    for row, image in enumerate(images):
        kept = detections.valid[row].numpy()
        categories = category_ids[detections.labels[row].numpy()]
        boxes = boxes_in_original(detections.boxes[row], image)[kept]
        masks = None
        if detections.masks is not None:
            masks = encode_masks(detections.masks[row].float().numpy()[kept], boxes, image.height, image.width)
        results.add(image.image_id, boxes, detections.scores[row].float().numpy()[kept], categories[kept], masks)
    return results


def scoring_notes(dataset: CocoDataset, config: Config) -> list[str]:
    """One line for each group of annotations in the file that the figures do not count."""
    ground_truth = dataset.ground_truth(count_skipped=config.eval.count_skipped)
    notes = ground_truth.notes("segm" if config.model.mask_head else "bbox")
    missing = int(dataset.missing.sum())
    if missing and not config.eval.count_skipped:
        notes.append(
            f"{dataset.annotations}: {missing} of {len(dataset)} images are missing (data.on_bad_image=skip) and left"
            " out of scoring; eval.count_skipped=true counts their objects as missed"
        )
    return notes + crowding_notes(dataset, config)


def crowding_notes(dataset: CocoDataset, config: Config) -> list[str]:
    """One line for each limit on the number of detections that keeps objects of the data set from being found."""
    box_head, lines = config.model.box_head, []
    if box_head is None:
        return lines
    counts = dataset.objects_per_image()
    if (crowded := int((counts > box_head.detections).sum())) > 0:
        lines.append(
            f"{dataset.annotations}: {crowded} of {len(dataset)} images have more objects (up to {counts.max()}) than"
            f" model.box_head.detections={box_head.detections} keeps; raise it"
        )
    of_class, limit = dataset.objects_per_image_and_class(), COCO_LIMITS[-1]
    if (crowded := int((of_class > limit).any(axis=1).sum())) > 0:
        lines.append(
            f"{dataset.annotations}: {crowded} of {len(dataset)} images have more than {limit} objects of one class (up"
            f" to {of_class.max()}); COCO's figures count the {limit} best detections of a class in an image"
        )
    return lines


def unreadable_notes(dataset: CocoDataset, results: CocoResults, config: Config) -> list[str]:
    """One line about the images that exist but could not be read, if there are any."""
    if not results.unreadable:
        return []
    left_out = (
        "their objects count as missed (eval.count_skipped=true)"
        if config.eval.count_skipped
        else "left out of scoring; eval.count_skipped=true counts their objects as missed"
    )
    first = next(iter(results.unreadable.values()))
    return [f"{len(results.unreadable)} of {len(dataset)} images cannot be read (the first: {first}): {left_out}"]
