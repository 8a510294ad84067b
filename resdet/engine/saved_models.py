"""Loads trained models for evaluation and prediction, one or several of the same classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from resdet.config import Config, TrainConfig, config_from_yaml, to_yaml
from resdet.data.sets.cache import cache_folder
from resdet.engine.checkpoint import (
    ModelFile,
    find_best_model_file,
    find_model_file,
    load_weights,
    read_model_file,
    without_weights,
)
from resdet.engine.distributed import memory_format
from resdet.engine.published import as_model_file
from resdet.engine.task.interface import Model
from resdet.engine.task.table import task_of
from resdet.errors import UserError
from resdet.models.build.conventions import normalize_as
from resdet.models.classifier import Classifier, ClassifierEnsemble
from resdet.models.rcnn import RCNN
from resdet.test_time.build import build_detector
from resdet.text import first_few
from resdet.weights.layers import check_layers


@dataclass(frozen=True)
class SavedModel:
    """A model file, its config with overrides; `warnings` name damaged checkpoints that were skipped.

    `changes` are the overrides that concern the model itself.
    """

    file: Path
    saved: ModelFile
    warnings: tuple[str, ...]
    changes: tuple[str, ...] = ()


def read_models(paths: Sequence[Path], overrides: Sequence[str], *, best: bool = False) -> list[SavedModel]:
    """Reads each run, checkpoint or file, or published detector by its name; the overrides apply to all of them.

    A run refers to its newest checkpoint, with `best` to its best one.

    Raises UserError for a damaged file, a mistake in the overrides, and for classes that differ from the first model's.
    """
    find = find_best_model_file if best else find_model_file
    models = [_read(*find(as_model_file(path, cache_folder())), overrides) for path in paths]
    first = models[0]
    for other in models[1:]:
        if other.saved.class_names != first.saved.class_names:
            raise UserError(
                f"{other.file}: its classes ({first_few(other.saved.class_names)}) are not those of {first.file}"
                f" ({first_few(first.saved.class_names)}); an ensemble needs the same names in the same order"
            )
    return models


def detector_of(models: Sequence[SavedModel], device: torch.device) -> nn.Module:
    """The detector for prediction: several models form an ensemble, and the first model's `config.test` adds its parts.

    Raises UserError for a classifier, for weights that do not fit, and for parts that cannot be combined.
    """
    config = models[0].saved.config
    return place(build_detector([built(model) for model in models], config), device, config.train)


def classifier_of(models: Sequence[SavedModel], device: torch.device) -> nn.Module:
    """The classifier for prediction; several models form an ensemble, the mean of their probabilities.

    Raises UserError for a detector, and for weights that do not fit.
    """
    train = models[0].saved.config.train
    members: list[Classifier] = []
    for model in models:
        member = restored(model)
        if not isinstance(member, Classifier):
            raise UserError(f"{model.file}: is a detector, and {models[0].file} a classifier; give classifiers alone")
        members.append(member)
    return place(members[0] if len(members) == 1 else ClassifierEnsemble(members), device, train)


def place(model: nn.Module, device: torch.device, train: TrainConfig) -> nn.Module:
    """The model on its device, in its memory format and in evaluation mode."""
    return model.to(device, memory_format=memory_format(train)).eval()  # pyright: ignore[reportCallIssue]


def built(model: SavedModel) -> RCNN:
    """A detector with its weights, on the CPU, as `restored` returns it. Raises UserError also for a classifier."""
    if not task_of(model.saved.config).has_detections:
        raise UserError(f"{model.file}: is a classifier, which finds no boxes; give a detector")
    detector = restored(model)
    assert isinstance(detector, RCNN)
    return detector


def restored(model: SavedModel) -> Model:
    """The model with its weights, on the CPU. Raises UserError for overrides that do not fit the weights."""
    config = model.saved.config
    module = task_of(config).build(without_weights(config).model, len(model.saved.class_names))
    try:
        load_weights(module, model.saved.weights, str(model.file))
    except UserError as error:
        if model.changes:
            raise UserError(f"{error}; the model was trained without {' '.join(model.changes)}") from None
        raise
    if model.saved.contract is not None:
        check_layers(module, model.saved.contract, str(model.file))
    normalize_as(module, config.model, model.saved.contract)
    return module


def load_model(path: str | Path) -> tuple[nn.Module, Config, tuple[str, ...], tuple[int, ...]]:
    """The trained detector, its config, class names and the data set's category ids by label.

    `path` is a run (its newest sound checkpoint), a checkpoint or a model file. The model is on the CPU and in
    evaluation mode. Raises UserError for a missing, damaged or foreign file, and for a classifier.
    """
    (model,) = read_models([Path(path)], ())
    saved = model.saved
    return built(model).eval(), saved.config, saved.class_names, saved.category_ids


def _read(file: Path, skipped: Sequence[str], overrides: Sequence[str]) -> SavedModel:
    saved = read_model_file(file)
    config = config_from_yaml(to_yaml(saved.config), str(file), overrides)
    if config.task != saved.config.task:
        raise UserError(f"{file}: was trained for task={saved.config.task}; leave task={config.task} out")
    changes = tuple(override for override in overrides if override.startswith("model."))
    return SavedModel(file, replace(saved, config=config), tuple(skipped), changes)
