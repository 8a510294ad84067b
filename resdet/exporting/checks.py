"""How far an exported graph is from the model: on single images, and in AP on the val set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from resdet.coco.results import CocoResults
from resdet.config import Config
from resdet.data.images.decode import read_image
from resdet.data.sets.coco import CocoDataset
from resdet.engine.distributed import World
from resdet.engine.evaluate.detections import evaluated_set, images_to_score
from resdet.engine.task.table import task_of
from resdet.errors import UserError
from resdet.evaluation.analysis.bootstrap import Bootstrap, paired_bootstrap
from resdet.exporting.formats import Run
from resdet.exporting.graph import Graph
from resdet.exporting.runtime import GraphDetector, inputs_of
from resdet.models.rcnn import RCNN

TOLERANCE = 1e-4  # of a score, a mask's cell, and of the longer side of the image for a box
IMAGES = 20


@dataclass(frozen=True)
class Parity:
    """How far graph and model are apart on some images: `unequal` of them have another number of detections or another
    label; the largest differences are those in the others. Boxes: in pixels, and as a share of the image's longer side.
    """

    images: int
    detections: int
    unequal: int
    boxes: float
    boxes_relative: float
    scores: float
    masks: float | None

    @property
    def holds(self) -> bool:
        return not self.unequal and max(self.boxes_relative, self.scores, self.masks or 0.0) <= TOLERANCE


MODEL, EXPORTED = "model", "exported"  # the detectors whose figures are measured


@dataclass(frozen=True)
class ValFigures:
    """Figures of detectors on the same images, with intervals, and the difference of each to the first."""

    images: int
    kinds: dict[str, Bootstrap] = field(default_factory=dict)  # by bbox, segm


def val_images(config: Config, count: int = IMAGES) -> tuple[CocoDataset | None, list[UInt8[np.ndarray, "H W 3"]]]:
    """Images of the val set at even distances, and a grey one without objects; other images if there is no val set."""
    try:
        dataset = evaluated_set(config)
        chosen = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)).tolist()
        images = [read_image(dataset.path(index), sixteen_bit=config.data.sixteen_bit) for index in chosen]
    except UserError:
        return None, [*_generated(count), _grey()]
    return dataset, [*images, _grey()]


def parity(graph: Graph, run: Run, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> Parity:
    """Compares the graph with the eager module that it was made of, which is in float32."""
    unequal, detections, boxes, relative, scores, masks = 0, 0, 0.0, 0.0, 0.0, 0.0
    for image in images:
        given, _ = inputs_of(image, graph.preparation, graph.preprocessing)
        with torch.no_grad():
            wanted = graph.module(*(torch.from_numpy(value) for value in given.values()))
        want = dict(zip(graph.output_names, (value.numpy() for value in wanted), strict=True))
        got = run(given)
        detections += int(want["valid"].sum())
        if not (np.array_equal(want["valid"], got["valid"]) and np.array_equal(want["labels"], got["labels"])):
            unequal += 1
            continue
        distance = _largest(want["boxes"], got["boxes"])
        boxes, relative = max(boxes, distance), max(relative, distance / max(image.shape[:2]))
        scores = max(scores, _largest(want["scores"], got["scores"]))
        masks = max(masks, _largest(want["masks"], got["masks"]) if "masks" in want else 0.0)
    has_masks = "masks" in graph.output_names
    return Parity(len(images), detections, unequal, boxes, relative, scores, masks if has_masks else None)


def cost(detector: RCNN, run: Run, dataset: CocoDataset, class_names: Sequence[str], config: Config) -> ValFigures:
    """AP of the eager detector in float32, and of its graph with the preparation outside, on the whole val set.

    In float32 whatever `train.amp` says, so that the difference is what the graph costs, and not what bfloat16 does.
    """
    config = replace(config, train=replace(config.train, amp="off"))
    return measured({MODEL: detector, EXPORTED: GraphDetector(run)}, dataset, class_names, config)


def measured(
    detectors: Mapping[str, nn.Module], dataset: CocoDataset, class_names: Sequence[str], config: Config
) -> ValFigures:
    """COCO's figures of the detectors, by their names, on the whole val set."""
    task = task_of(config)
    found: dict[str, CocoResults] = {}
    for name, model in detectors.items():
        done = task.evaluate_saved(
            model, class_names, config, world=World(), say=_silent, warn=_silent, progress=lambda done, total: None
        )
        assert done.counted is not None, "detectors have detections"
        found[name] = done.counted
    images = images_to_score(dataset, next(iter(found.values())), config)
    truth = dataset.ground_truth(count_skipped=config.eval.count_skipped)
    kinds = ["bbox"]
    if config.model.mask_head is not None and dataset.segmentations.present().any():
        kinds.append("segm")
    compared = {
        kind: paired_bootstrap(truth, {name: [each] for name, each in found.items()}, iou_type=kind, image_ids=images)
        for kind in kinds
    }
    return ValFigures(len(images), compared)


def _silent(line: str) -> None:
    """The figures are printed by whoever asked for them."""


def _largest(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max(initial=0.0))


def _generated(count: int) -> list[UInt8[np.ndarray, "H W 3"]]:
    rng = np.random.default_rng(0)
    sides = rng.integers(6, 20, (count, 2))
    return [rng.integers(0, 256, (*side, 3), np.uint8).repeat(16, 0).repeat(16, 1) for side in sides]


def _grey() -> UInt8[np.ndarray, "H W 3"]:
    return np.full((120, 160, 3), 128, np.uint8)
