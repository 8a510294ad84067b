"""The interface of a task for the engine; only engine/task/table.py selects a task from a config."""

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
from resdet.data.sets.labelled_files import LabelledFiles
from resdet.engine.distributed import World
from resdet.engine.run_folder import Figures
from resdet.engine.signals import StopRequest
from resdet.evaluation.metrics import Figure
from resdet.models.classifier import Classifier
from resdet.models.rcnn import RCNN

ImageSet = CocoDataset | LabelledImages | LabelledFiles
Model = RCNN | Classifier
Progress = Callable[[int, int], None]  # receives the number of finished batches and their total
Data = TypeVar("Data", bound=ImageSet)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: the figures of a model, and the data on which they were computed.

    A classifier has only figures. `counted` are the detections that the figures count, `found` also those of classes
    that the data set lacks; `categories` are the names of the ids in `found`; `backend` is the evaluator; `notes` are
    lines about data that the figures do not count.
    """

    figures: Figures
    config: Config
    dataset: CocoDataset | None = None
    counted: CocoResults | None = None
    found: CocoResults | None = None
    categories: dict[int, str] = field(default_factory=dict)
    backend: str | None = None
    notes: Sequence[str] = ()


class Task(ABC, Generic[Data]):
    """One kind of learning task, on data sets of type `Data`. It has no state."""

    headline: ClassVar[str]  # the figure that selects the best checkpoint; higher is better
    headline_words: ClassVar[str]  # its name in the log
    # whether it has detections, which are saved, drawn and analysed, and whether its models can form an ensemble
    has_detections: ClassVar[bool]

    @abstractmethod
    def open_data(self, config: Config) -> tuple[Data, Data]:
        """The train and val sets; with `train.overfit`, this number of training images for both.

        Raises UserError for data that are missing, damaged, or not usable for this task and model.
        """

    @abstractmethod
    def figure_rows(self, config: Config) -> tuple[Figure, ...]:
        """The figures over all classes that an evaluation in training has."""

    @abstractmethod
    def build(self, model: ModelConfig, num_classes: int) -> Model:
        """A model with random weights, or with pretrained weights of the backbone if the config names some."""

    @abstractmethod
    def pretrained(
        self, model: ModelConfig, file: Path, class_names: Sequence[str]
    ) -> tuple[Model, ModelConfig, tuple[str, ...]]:
        """A model that starts from the weights of a whole model and uses its conventions.

        Returns the model, the config with these conventions, and lines about the loaded weights. Raises UserError for
        weights that do not fit, or whose conventions contradict the config.
        """

    @abstractmethod
    def training_batches(
        self, dataset: Data, config: Config, *, start_step: int, rank: int, world_size: int
    ) -> Iterator[LoadedBatch]:
        """This process's share of every global batch from `start_step` on, in an infinite iterator."""

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
        """Evaluates a model during training; its classes are those of the data. Raises Interrupted if `stop` was
        requested.
        """

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
        """Evaluates a model with the classes `class_names` on the data of its config; classes are matched by name.

        Raises UserError for data with other classes.
        """

    @abstractmethod
    def rehearse(
        self, model: nn.Module, val_set: Data, config: Config, *, world: World, device: torch.device
    ) -> list[str]:
        """Predicts one evaluation batch, if the task has predictions to draw; returns lines about the result."""

    @abstractmethod
    def fingerprint(self, dataset: Data) -> str:
        """A hash of the content that is learned from a data set; it does not depend on the folder."""

    @abstractmethod
    def warnings(self, val_set: Data, config: Config) -> list[str]:
        """Warnings about annotations that the figures will not count."""

    @abstractmethod
    def saved_classes(self, dataset: Data) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The names of the model's labels and the category ids of the data set, as stored in a checkpoint."""

    @abstractmethod
    def describe(self, model: ModelConfig) -> str:
        """The usual name of the model that a config describes."""
