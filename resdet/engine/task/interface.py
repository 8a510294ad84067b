"""What a task is to the engine. Nothing else asks which one a config is of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import nn

from resdet.coco.results import CocoResults
from resdet.config import Config, ModelConfig
from resdet.data.batches.loader import LoadedBatch
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.labelled import LabelledImages
from resdet.engine.distributed import World
from resdet.engine.run_folder import Figures
from resdet.engine.signals import StopRequest
from resdet.models.classifier import Classifier
from resdet.models.rcnn import RCNN

ImageSet = CocoDataset | LabelledImages
Model = RCNN | Classifier
Progress = Callable[[int, int], None]  # is told how many of how many batches are done
Data = TypeVar("Data", bound=ImageSet)


@dataclass(frozen=True)
class Evaluation:
    """What a model was found to be worth, and on what.

    A classifier has figures alone. `counted` are the detections that the figures count, `found` also those of classes
    that the data set lacks; `categories` name the ids in `found`; `backend` is what scored.
    """

    figures: Figures
    config: Config
    dataset: CocoDataset | None = None
    counted: CocoResults | None = None
    found: CocoResults | None = None
    categories: dict[int, str] = field(default_factory=dict)
    backend: str | None = None


class Task(ABC, Generic[Data]):
    """One kind of thing to learn, of data sets of type `Data`. It has no state."""

    headline: ClassVar[str]  # the figure whose highest value is the best checkpoint
    headline_words: ClassVar[str]  # its name in the log
    has_detections: ClassVar[bool]  # which are kept, drawn and looked into; and whose models may be an ensemble

    @abstractmethod
    def open_data(self, config: Config) -> tuple[Data, Data]:
        """The train and val sets; with `train.overfit` the first so many training images for both.

        Raises UserError for data that are missing, damaged, or of no use to this task and model.
        """

    @abstractmethod
    def build(self, model: ModelConfig, num_classes: int) -> Model:
        """A model with random weights, or with a backbone's where the config names some."""

    @abstractmethod
    def pretrained(
        self, model: ModelConfig, file: Path, class_names: Sequence[str]
    ) -> tuple[Model, ModelConfig, tuple[str, ...]]:
        """A model that starts from the weights of a whole one, whose conventions it takes over.

        Returns it, the config with these conventions, and lines on what was loaded. Raises UserError for weights that
        do not fit, or that were trained under conventions which the config contradicts.
        """

    @abstractmethod
    def training_batches(
        self, dataset: Data, config: Config, *, start_step: int, rank: int, world_size: int
    ) -> Iterator[LoadedBatch]:
        """This process' share of every global batch from `start_step` on, without end."""

    @abstractmethod
    def evaluate(
        self,
        model: nn.Module,
        train_set: Data,
        val_set: Data,
        config: Config,
        *,
        world: World,
        stop: StopRequest | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Of a model in training, whose classes are those of the data. Raises Interrupted when `stop` was requested."""

    @abstractmethod
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
        """Of a model whose classes are `class_names`, on the data that its config says, matched by name.

        Raises UserError for data with other classes.
        """

    @abstractmethod
    def rehearse(
        self, model: nn.Module, val_set: Data, config: Config, *, world: World, device: torch.device
    ) -> list[str]:
        """Predicts one evaluation batch, where there is something to see; lines on what came of it."""

    @abstractmethod
    def fingerprint(self, dataset: Data) -> str:
        """Changes with what is learnt from a data set, whatever folder it lies in."""

    @abstractmethod
    def warnings(self, val_set: Data, config: Config) -> list[str]:
        """What the figures will not count."""

    @abstractmethod
    def saved_classes(self, dataset: Data) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The names of the model's labels and the category ids of the data set, as a checkpoint states them."""

    @abstractmethod
    def describe(self, model: ModelConfig) -> str:
        """The usual name of what a config builds."""
