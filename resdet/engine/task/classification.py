"""Classification: one class per image, as in the first tables of He et al. 2015."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from resdet.config import Config, DataConfig, ModelConfig
from resdet.data.batches import photos
from resdet.data.batches.loader import LoadedBatch
from resdet.data.sets import labelled
from resdet.data.sets.labelled import cifar10, shapes_patches
from resdet.data.sets.labelled_files import LabelledFiles, flat_folder, folders_of_classes, imagenet
from resdet.engine.distributed import World
from resdet.engine.evaluate.classifier import LabelledSet, configured_views, evaluate_classifier
from resdet.engine.signals import StopRequest
from resdet.engine.task.interface import Evaluation, Progress, Task
from resdet.errors import UserError, did_you_mean
from resdet.evaluation.metrics import CLASSIFICATION_FIGURES, Figure
from resdet.models.build.classifier import build_classifier, pretrained_classifier
from resdet.models.classifier import Classifier

SIDE_OF_VGG, SIDE_OF_FC = 32, 224  # pixels: one cell of the last map, and the 7x7 cells that fc6 sees
LABELLED_SETS = ("cifar10", "shapes_patches", "imagenet")


class Classification(Task[LabelledSet]):
    """Predicts the class of an image. The images are in memory if they are small, or files that workers read."""

    headline, headline_words = "top1/accuracy", "top-1 accuracy"
    has_detections = False

    def open_data(self, config: Config) -> tuple[LabelledSet, LabelledSet]:
        if config.eval.loss:
            raise UserError("eval.loss=true is for detectors; a classifier always has top1/loss: leave eval.loss out")
        train_set = open_labelled(config.data, "train")
        check_side(config, train_set)
        if config.train.overfit is not None:
            train_set = train_set.first(config.train.overfit)
            return train_set, train_set
        val_set = open_labelled(config.data, "val")
        if isinstance(val_set, LabelledFiles):
            val_set = val_set.with_classes(train_set.class_names)
        return train_set, val_set

    def figure_rows(self, config: Config) -> tuple[Figure, ...]:
        rows = (*CLASSIFICATION_FIGURES, Figure("top1/loss", "cross entropy", higher_is_better=False))
        return tuple(row for row in rows if config.eval.train_images or not row.name.startswith("train"))

    def build(self, model: ModelConfig, num_classes: int) -> Classifier:
        return build_classifier(model, num_classes)

    def pretrained(
        self, model: ModelConfig, file: Path, class_names: Sequence[str]
    ) -> tuple[Classifier, ModelConfig, tuple[str, ...]]:
        return pretrained_classifier(model, file, class_names)

    def training_batches(
        self, dataset: LabelledSet, config: Config, *, start_step: int, rank: int, world_size: int
    ) -> Iterator[LoadedBatch]:
        if isinstance(dataset, LabelledFiles):
            return photos.training_batches(dataset, config, start_step=start_step, rank=rank, world_size=world_size)
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
        train_set: LabelledSet,
        val_set: LabelledSet,
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
        train_set, val_set = self._sets_of(config, class_names)
        check_views(config, val_set)
        if config.train.overfit is not None:
            say(f"train.overfit={config.train.overfit}: on training images; train.overfit=null takes data.val")
        say(val_set.report.summary())
        figures = evaluate_classifier(
            model, train_set, val_set, config, views=configured_views(config), world=world, progress=progress
        )
        return Evaluation(figures, config)

    def _sets_of(self, config: Config, class_names: Sequence[str]) -> tuple[LabelledSet, LabelledSet]:
        """The train set (only where it is evaluated) and the val set, with the labels of a saved model."""
        if config.train.overfit is None and not config.eval.train_images:
            train_set = val_set = open_labelled(config.data, "val")
        else:
            train_set, val_set = self.open_data(config)
        if isinstance(val_set, LabelledFiles) and isinstance(train_set, LabelledFiles):
            return train_set.with_classes(class_names), val_set.with_classes(class_names)
        if val_set.class_names != tuple(class_names):
            raise UserError(f"{val_set.annotations}: its classes are not the model's ({', '.join(class_names)})")
        return train_set, val_set

    def rehearse(
        self, model: nn.Module, val_set: LabelledSet, config: Config, *, world: World, device: torch.device
    ) -> list[str]:
        return []

    def fingerprint(self, dataset: LabelledSet) -> str:
        return dataset.fingerprint

    def warnings(self, val_set: LabelledSet, config: Config) -> list[str]:
        return []

    def saved_classes(self, dataset: LabelledSet) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return tuple(dataset.class_names), tuple(dataset.category_ids.tolist())

    def describe(self, model: ModelConfig) -> str:
        return "classifier"


def open_labelled(data: DataConfig, split: str) -> LabelledSet:
    """The images of `split`, "train" or "val". Raises UserError for a set that is unknown, missing or damaged."""
    if data.path is not None:
        raise UserError(
            f"data.path={data.path[0]}: is for detection; give data.{split}.images, with a folder per class"
        )
    if data.sampler != "shuffled":
        raise UserError(f"data.sampler={data.sampler}: is for detection; leave it out")
    chosen = {"train": data.train, "val": data.val}[split]
    if chosen.images:
        folder = Path(chosen.images)
        return flat_folder(folder, Path(chosen.annotations)) if chosen.annotations else folders_of_classes(folder)
    if chosen.annotations:
        raise UserError(
            f"data.{split}.annotations={chosen.annotations}: task=classification has images and classes from"
            f" data.{split}.images=FOLDER, and a devkit's numbers beside it, or from data.{split}.name="
            f"{' or '.join(LABELLED_SETS)}"
        )
    if chosen.name == "cifar10":
        return cifar10(Path(data.root), split)
    if chosen.name == "imagenet":
        return imagenet(Path(data.root), split)
    if chosen.name == "shapes_patches":
        patches = data.patches
        count = {"train": patches.train_images, "val": patches.val_images}[split]
        return shapes_patches(split, count=count, size=patches.size, seed=patches.seed)
    raise UserError(
        f"data.{split}.name={chosen.name} is not for task=classification{did_you_mean(chosen.name, LABELLED_SETS)}"
    )


def check_side(config: Config, dataset: LabelledSet) -> None:
    """Raises UserError for images that are too small for the net, and for sides that do not go together."""
    name, augment = config.model.backbone.name, config.data.augment
    if augment.transforms is not None:
        raise UserError("data.augment.transforms is for task=detection; use flip, photometric, extra, crop and pad")
    side = augment.crop if isinstance(dataset, LabelledFiles) else dataset.images.shape[1]
    needed = SIDE_OF_FC if config.model.classifier.name == "two_fc" else SIDE_OF_VGG if name.startswith("vgg") else 0
    if side < needed:
        raise UserError(
            f"model.backbone.name={name} with model.classifier.name={config.model.classifier.name} halves an image five"
            f" times and needs {needed} pixels a side, and those of {dataset.annotations} have {side}; take a net for"
            " small images such as resnet20_cifar"
        )
    if isinstance(dataset, LabelledFiles):
        smallest, largest = augment.short_side_range
        if not augment.crop <= smallest <= largest:
            raise UserError(
                f"data.augment.short_side_range=[{smallest}, {largest}] with data.augment.crop={augment.crop}: the crop"
                " must fit into the smallest, and the smaller side comes first"
            )
        if augment.test_short_side < augment.crop:
            raise UserError(
                f"data.augment.test_short_side={augment.test_short_side} is smaller than"
                f" data.augment.crop={augment.crop}; make it larger"
            )


def check_views(config: Config, dataset: LabelledSet) -> None:
    """Raises UserError for `test` keys that have no meaning for these images or do not fit their sizes."""
    test, views = config.test, configured_views(config)
    if not isinstance(dataset, LabelledFiles) and (test.crops != "center" or test.augmentation):
        raise UserError(
            f"test.crops={test.crops}, test.augmentation: are for image files, and the images of {dataset.annotations}"
            " are evaluated as they are; leave them out"
        )
    if test.crops != "full" and min(views.short_sides) < views.side:
        raise UserError(
            f"test.crops={test.crops} with a short side of {min(views.short_sides)} pixels: a crop of"
            f" data.augment.crop={views.side} does not fit; leave that side out, or set test.crops=full"
        )
    if test.refinement or test.voting or test.scales:
        raise UserError("test.refinement, test.voting and test.scales are for detectors; leave them out")
