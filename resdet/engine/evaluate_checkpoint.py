"""Evaluation of a saved model, as `resdet evaluate` does it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from resdet.config import Config
from resdet.data.sets.coco import CocoDataset
from resdet.data.sets.labelled import LabelledImages
from resdet.engine.checkpoint import ModelFile, load_weights, without_weights
from resdet.engine.classify import evaluate_classifier
from resdet.engine.distributed import World, choose_device, join_world
from resdet.engine.evaluate import evaluate, evaluated_set, found_categories, mask_gaps, predict_dataset
from resdet.engine.log import RunLog
from resdet.engine.run_folder import RunFiles
from resdet.engine.saved_models import detector_of, read_models
from resdet.engine.setup import open_data
from resdet.engine.state import Metrics
from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults, backend_name
from resdet.models.build.detector import build_classifier
from resdet.text import first_few


@dataclass(frozen=True)
class Evaluation:
    """What a saved model was found to be worth, and on what.

    A classifier has no `dataset` and no `results`. `results` are all detections, also those of classes that the data
    set lacks, which no figure counts; `categories` name their ids.
    """

    figures: Metrics
    config: Config
    dataset: CocoDataset | None = None
    results: CocoResults | None = None
    categories: dict[int, str] = field(default_factory=dict)


def evaluate_checkpoint(
    path: Path,
    *,
    also: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    output: Path | None = None,
) -> Evaluation:
    """Evaluates a saved model on its config's val set, with `key=value` overrides of that config.

    It predicts with the parts of `config.test`, and those in `also`, which must have its classes, make it an ensemble.
    `output` is a folder for the figures and the detections that they count (COCO results). Raises UserError for a
    damaged checkpoint, a mistake in the overrides, data with none of the model's classes, or parts and models that do
    not go together.
    """
    models = read_models([path, *also], overrides)
    saved, config = models[0].saved, models[0].saved.config
    if config.task == "classification":
        if also:
            raise UserError(f"{path}: classifiers are evaluated one at a time; give one checkpoint")
        return evaluate_saved_classifier(saved, config, output)
    with join_world(config.train.device) as world, RunLog(None, steps=saved.step, speaks=world.leads) as log:
        detector = detector_of(models, choose_device(config.train.device, world))
        dataset = evaluated_set(config)
        categories = category_of_label(saved.class_names, dataset, config)
        gaps = mask_gaps(dataset) if config.model.mask_head else []
        skipped = [warning for model in models for warning in model.warnings]
        for warning in skipped + absent_classes(categories, dataset) + gaps:
            log.warn(warning)
        for model in models:
            log.say(f"{model.file}: step {model.saved.step}")
        if config.train.overfit is not None:
            log.say(f"train.overfit={config.train.overfit}: on training images; train.overfit=null takes data.val")
        log.say(dataset.report.summary())
        ids = np.array(list(categories), dtype=np.int64)
        found = predict_dataset(detector, dataset, config, category_ids=ids, world=world, progress=log.evaluating)
        counted = results_of_classes(found, dataset.category_ids)
        metrics = evaluate(detector, dataset, config, results=counted, world=world)
        if output and world.leads:
            backend = backend_name(config.eval.backend)
            RunFiles(output).write_evaluation(metrics, step=saved.step, backend=backend, results=counted)
        return Evaluation(metrics, config, dataset, found, categories)


def evaluate_saved_classifier(saved: ModelFile, config: Config, output: Path | None) -> Evaluation:
    """The same for a classifier, in one process; `output` is a folder for the figures."""
    model = build_classifier(without_weights(config).model, len(saved.class_names))
    load_weights(model, saved.weights, "the checkpoint")
    train_set, val_set = open_data(config)
    assert isinstance(train_set, LabelledImages)
    assert isinstance(val_set, LabelledImages)
    if val_set.class_names != saved.class_names:
        raise UserError(f"{val_set.annotations}: its classes are not the model's ({', '.join(saved.class_names)})")
    metrics = evaluate_classifier(model.to(choose_device(config.train.device, World())), train_set, val_set, config)
    if output:
        RunFiles(output).write_evaluation(metrics, step=saved.step)
    return Evaluation(metrics, config)


def category_of_label(class_names: Sequence[str], dataset: CocoDataset, config: Config) -> dict[int, str]:
    """A category id and its name for each of the model's labels, in their order.

    Ids are the data set's, by the name of the class; a class that it does not have gets one that no category of it
    has. Raises UserError when no name is known to both.
    """
    if config.model.box_head is None:  # proposals are of no class
        return found_categories(config, dataset)
    ids = {name: number for number, name in found_categories(config, dataset).items()}
    if not any(name in ids for name in class_names):
        raise UserError(
            f"{dataset.annotations}: has none of the model's classes ({first_few(class_names)}); its categories"
            f" are {first_few(dataset.class_names)}: evaluate on data with the same names"
        )
    taken = set(ids.values())
    free = (number for number in itertools.count(1) if number not in taken)
    return {ids[name] if name in ids else next(free): name for name in class_names}


def absent_classes(categories: Mapping[int, str], dataset: CocoDataset) -> list[str]:
    """A warning where the data set does not have all of the model's classes."""
    known = set(dataset.category_ids.tolist())
    missing = [name for number, name in categories.items() if number not in known]
    return [f"{dataset.annotations} has no {', '.join(missing)}: left out of the figures"] if missing else []


def results_of_classes(results: CocoResults, category_ids: Int64[np.ndarray, " K"]) -> CocoResults:
    """The detections of some classes alone, in their order."""
    rows = np.flatnonzero(np.isin(results.category_ids, category_ids))
    if len(rows) == len(results):
        return results
    chosen = CocoResults(results.source)
    chosen.add_columns(
        results.image_ids[rows],
        results.category_ids[rows],
        results.scores[rows],
        None if results.boxes is None else results.boxes[rows],
        None if results.segmentations is None else [results.segmentations[row] for row in rows.tolist()],
    )
    return chosen
