"""Classification: one class per image, as in the first tables of He et al. 2015."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from resdet.config import Config, DataConfig, ModelConfig
from resdet.data.batches.loader import LoadedBatch
from resdet.data.sets import labelled
from resdet.data.sets.labelled import LabelledImages, cifar10, shapes_patches
from resdet.engine.distributed import World
from resdet.engine.evaluate.classifier import evaluate_classifier
from resdet.engine.signals import StopRequest
from resdet.engine.task.interface import Evaluation, Progress, Task
from resdet.errors import UserError, did_you_mean
from resdet.models.build.detector import build_classifier, pretrained_classifier
from resdet.models.classifier import Classifier

LABELLED_SETS = ("cifar10", "shapes_patches")


class Classification(Task[LabelledImages]):
    """Predicts the class of an image with the backbone, a global average pool and one linear layer."""

    headline, headline_words = "top1/accuracy", "top-1 accuracy"
    has_detections = False

    def open_data(self, config: Config) -> tuple[LabelledImages, LabelledImages]:
        train_set = open_labelled(config.data, "train")
        check_side(config, train_set)
        if config.train.overfit is not None:
            train_set = train_set.first(config.train.overfit)
            return train_set, train_set
        return train_set, open_labelled(config.data, "val")

    def build(self, model: ModelConfig, num_classes: int) -> Classifier:
        return build_classifier(model, num_classes)

    def pretrained(
        self, model: ModelConfig, file: Path, class_names: Sequence[str]
    ) -> tuple[Classifier, ModelConfig, tuple[str, ...]]:
        return pretrained_classifier(model, file, class_names)

    def training_batches(
        self, dataset: LabelledImages, config: Config, *, start_step: int, rank: int, world_size: int
    ) -> Iterator[LoadedBatch]:
        return labelled.training_batches(
            dataset,
            batch_size=config.train.batch_size,
            seed=config.train.seed,
            pad=config.data.augment.pad,
            flip=config.data.augment.flip,
            start_step=start_step,
            rank=rank,
            world_size=world_size,
        )

    def evaluate(
        self,
        model: nn.Module,
        train_set: LabelledImages,
        val_set: LabelledImages,
        config: Config,
        *,
        world: World,
        stop: StopRequest | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        figures = evaluate_classifier(model, train_set, val_set, config, world=world, stop=stop, progress=progress)
        return Evaluation(figures, config)

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
        train_set, val_set = self.open_data(config)
        if val_set.class_names != tuple(class_names):
            raise UserError(f"{val_set.annotations}: its classes are not the model's ({', '.join(class_names)})")
        if config.train.overfit is not None:
            say(f"train.overfit={config.train.overfit}: on training images; train.overfit=null takes data.val")
        say(val_set.report.summary())
        return self.evaluate(model, train_set, val_set, config, world=world, progress=progress)

    def rehearse(
        self, model: nn.Module, val_set: LabelledImages, config: Config, *, world: World, device: torch.device
    ) -> list[str]:
        return []

    def fingerprint(self, dataset: LabelledImages) -> str:
        return dataset.fingerprint

    def warnings(self, val_set: LabelledImages, config: Config) -> list[str]:
        return []

    def saved_classes(self, dataset: LabelledImages) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return tuple(dataset.class_names), tuple(dataset.category_ids.tolist())

    def describe(self, model: ModelConfig) -> str:
        return "classifier"


def open_labelled(data: DataConfig, split: str) -> LabelledImages:
    """The images of `split`, "train" or "val". Raises UserError for a set that is unknown, missing or damaged."""
    chosen = {"train": data.train, "val": data.val}[split]
    if chosen.annotations or chosen.images:
        raise UserError(
            f"data.{split}.annotations={chosen.annotations} data.{split}.images={chosen.images}: files of objects, and "
            f"task=classification learns from data.{split}.name={' or '.join(LABELLED_SETS)}; leave them out"
        )
    if chosen.name == "cifar10":
        return cifar10(Path(data.root), split)
    if chosen.name == "shapes_patches":
        patches = data.patches
        count = {"train": patches.train_images, "val": patches.val_images}[split]
        return shapes_patches(split, count=count, size=patches.size, seed=patches.seed)
    raise UserError(
        f"data.{split}.name={chosen.name} is not for task=classification{did_you_mean(chosen.name, LABELLED_SETS)}"
    )


def check_side(config: Config, dataset: LabelledImages) -> None:
    """Raises UserError for images that are too small for the five poolings of a VGG."""
    name, side = config.model.backbone.name, dataset.images.shape[1]
    if name.startswith("vgg") and side < 32:
        raise UserError(
            f"model.backbone.name={name} halves an image five times, and those of {dataset.annotations} have {side} "
            "pixels a side; take a net for small images such as resnet20_cifar"
        )
