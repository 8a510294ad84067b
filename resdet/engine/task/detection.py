"""Detection of boxes and masks of objects; and the first stage alone, whose boxes have no class."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from resdet.coco.class_names import match_classes
from resdet.coco.results import CocoResults
from resdet.config import Config, ModelConfig
from resdet.data.batches import loader
from resdet.data.batches.loader import LoadedBatch, evaluation_batches, open_split, subset
from resdet.data.sets.coco import CocoDataset
from resdet.engine.distributed import World, autocast, to_device
from resdet.engine.evaluate import (
    chosen_metric,
    evaluate,
    evaluated_set,
    predict_batch,
    predict_dataset,
    scoring_notes,
    unreadable_notes,
)
from resdet.engine.evaluate.val_loss import validation_losses
from resdet.engine.signals import StopRequest
from resdet.engine.task.classification import LABELLED_SETS
from resdet.engine.task.interface import Evaluation, Progress, Task
from resdet.errors import UserError
from resdet.evaluation.coco import backend_name
from resdet.evaluation.metrics import LOSS_FIGURES, METRICS, Figure
from resdet.models.build.detector import build_model, pretrained_detector
from resdet.models.rcnn import RCNN
from resdet.text import first_few


class Detection(Task[CocoDataset]):
    """Detects objects: a box and a class for each, and masks if the model has a mask head."""

    headline, headline_words = "bbox/AP", "box AP"
    has_detections = True

    def open_data(self, config: Config) -> tuple[CocoDataset, CocoDataset]:
        _ = chosen_metric(config)  # an unknown name is refused before anything is read
        if config.data.path is None and config.data.train.name in LABELLED_SETS:
            raise UserError(f"data.train.name={config.data.train.name} has no boxes; it is for task=classification")
        train_set = open_split(config.data, "train")
        check_masks(config, train_set)
        if config.train.overfit is not None:
            train_set = subset(train_set, config.train.overfit)
            return train_set, train_set
        val_set = evaluated_set(config)
        check_categories(train_set, val_set)
        return train_set, val_set

    def figure_rows(self, config: Config) -> tuple[Figure, ...]:
        rows = [row for row in METRICS["coco"].figures]
        if config.eval.metric != "coco":
            rows += METRICS[config.eval.metric].figures
        return (*rows, *LOSS_FIGURES) if config.eval.loss else tuple(rows)

    def build(self, model: ModelConfig, num_classes: int) -> RCNN:
        return build_model(model, num_classes)

    def pretrained(
        self, model: ModelConfig, file: Path, class_names: Sequence[str]
    ) -> tuple[RCNN, ModelConfig, tuple[str, ...]]:
        return pretrained_detector(model, file, class_names)

    def training_batches(
        self, dataset: CocoDataset, config: Config, *, start_step: int, rank: int, world_size: int
    ) -> Iterator[LoadedBatch]:
        return loader.training_batches(dataset, config, start_step=start_step, rank=rank, world_size=world_size)

    def evaluate(
        self,
        model: nn.Module,
        train_set: CocoDataset,
        val_set: CocoDataset,
        config: Config,
        *,
        world: World,
        stop: StopRequest | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        losses: dict[str, float | None] = {}
        if config.eval.loss:
            assert isinstance(model, RCNN)
            losses = validation_losses(model, val_set, config, world=world, stop=stop or StopRequest())
        found = predict_dataset(model, val_set, config, world=world, stop=stop, progress=progress)
        evaluation = self._scored(model, val_set, config, found, self.categories(val_set), world)
        return replace(evaluation, figures=evaluation.figures | losses)

    def evaluate_saved(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        config: Config,
        *,
        world: World,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        progress: Progress,
    ) -> Evaluation:
        _ = chosen_metric(config)
        dataset = evaluated_set(config)
        categories = self.category_of_label(class_names, dataset)
        for warning in (*absent_classes(categories, dataset), *self.warnings(dataset, config)):
            warn(warning)
        if config.train.overfit is not None:
            say(f"train.overfit={config.train.overfit}: on training images; train.overfit=null takes data.val")
        say(dataset.report.summary())
        ids = np.array(list(categories), dtype=np.int64)
        found = predict_dataset(model, dataset, config, category_ids=ids, world=world, progress=progress)
        return self._scored(model, dataset, config, found, categories, world)

    def _scored(
        self,
        model: nn.Module,
        dataset: CocoDataset,
        config: Config,
        found: CocoResults,
        categories: dict[int, str],
        world: World,
    ) -> Evaluation:
        counted = found.of_classes(dataset.category_ids)
        figures = evaluate(model, dataset, config, results=counted, world=world)
        notes = unreadable_notes(dataset, found, config)
        return Evaluation(
            figures, config, dataset, counted, found, categories, backend_name(config.eval.backend), notes
        )

    def rehearse(
        self, model: nn.Module, val_set: CocoDataset, config: Config, *, world: World, device: torch.device
    ) -> list[str]:
        loaded = next(iter(evaluation_batches(val_set, config, rank=world.rank, world_size=world.size)))
        _ = model.eval()
        with torch.inference_mode(), autocast(config.train, device):
            detections = predict_batch(model, to_device(loaded.batch, config.train, device))
        return [f"evaluation batch: {int(detections.valid.sum())} detections on {len(loaded.images)} images"]

    def fingerprint(self, dataset: CocoDataset) -> str:
        """A hash of the images' ids and sizes, the boxes and the classes."""
        digest = hashlib.sha256("\0".join(dataset.class_names).encode())
        columns = (dataset.image_ids, dataset.heights, dataset.widths, dataset.offsets, dataset.boxes, dataset.labels)
        for array in columns:
            digest.update(array.tobytes())
        return digest.hexdigest()

    def warnings(self, val_set: CocoDataset, config: Config) -> list[str]:
        return scoring_notes(val_set, config)

    def saved_classes(self, dataset: CocoDataset) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return tuple(dataset.class_names), tuple(dataset.category_ids.tolist())

    def describe(self, model: ModelConfig) -> str:
        name = f"{'Cascade ' * bool(model.cascade)}{'Mask ' * bool(model.mask_head)}R-CNN"
        return f"{'Faster R-CNN' if name == 'R-CNN' else name} ({model.neck.name.upper()})"

    def categories(self, dataset: CocoDataset) -> dict[int, str]:
        """The category ids in the detections of a data set, with the names of their classes."""
        return dict(zip(dataset.category_ids.tolist(), dataset.class_names, strict=True))

    def category_of_label(self, class_names: Sequence[str], dataset: CocoDataset) -> dict[int, str]:
        """A category id and its name for each of the model's labels, in their order.

        Ids are the data set's, matched by the name of the class; a class that the data set lacks gets an unused id.
        Raises UserError if the model and the data set share no class name.
        """
        positions = match_classes(class_names, dataset.class_names)
        if all(position is None for position in positions):
            raise UserError(
                f"{dataset.annotations}: has none of the model's classes ({first_few(class_names)}); its categories"
                f" are {first_few(dataset.class_names)}: evaluate on data with the same names"
            )
        known = dataset.category_ids.tolist()
        free = (number for number in itertools.count(1) if number not in known)
        ids = [next(free) if position is None else known[position] for position in positions]
        return dict(zip(ids, class_names, strict=True))


class FirstStage(Detection):
    """Proposals alone: every label is 0, the class `object`, with the data set's first category id."""

    headline, headline_words = "recall/AR1000", "AR of 1000 proposals"

    def figure_rows(self, config: Config) -> tuple[Figure, ...]:
        return (*METRICS["recall"].figures, *(LOSS_FIGURES if config.eval.loss else ()))

    def saved_classes(self, dataset: CocoDataset) -> tuple[tuple[str, ...], tuple[int, ...]]:
        ((number, name),) = self.categories(dataset).items()
        return (name,), (number,)

    def describe(self, model: ModelConfig) -> str:
        return f"RPN ({model.neck.name.upper()})"

    def categories(self, dataset: CocoDataset) -> dict[int, str]:
        return {int(dataset.category_ids[0]): "object"}

    def category_of_label(self, class_names: Sequence[str], dataset: CocoDataset) -> dict[int, str]:
        return self.categories(dataset)


def check_categories(train_set: CocoDataset, val_set: CocoDataset) -> None:
    """Raises UserError unless train and val list the same categories."""
    pairs = (zip(data.category_ids.tolist(), data.class_names, strict=True) for data in (train_set, val_set))
    different = set(next(pairs)) ^ set(next(pairs))
    if different:
        number, name = min(different)
        raise UserError(
            f"{val_set.annotations}: its categories differ from those of {train_set.annotations} (first at id {number},"
            f" {name!r}); train and val need the same list"
        )


def check_masks(config: Config, train_set: CocoDataset) -> None:
    """Raises UserError if no object has a mask from which a mask head could learn."""
    if config.model.mask_head and not train_set.segmentations.present()[~train_set.crowd].any():
        raise UserError(
            f"{train_set.annotations}: no object has a mask (segmentation), which model.mask_head learns from;"
            " set model.mask_head=null for boxes alone"
        )


def absent_classes(categories: Mapping[int, str], dataset: CocoDataset) -> list[str]:
    """A warning if the data set lacks some of the model's classes."""
    known = set(dataset.category_ids.tolist())
    missing = [name for number, name in categories.items() if number not in known]
    return [f"{dataset.annotations} has no {', '.join(missing)}: left out of the figures"] if missing else []
