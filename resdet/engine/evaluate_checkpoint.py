"""Evaluation of a saved model, as `resdet evaluate` does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from resdet.config import Config
from resdet.data.batches.loader import open_split
from resdet.data.sets.coco import CocoDataset
from resdet.engine.checkpoint import ModelFile, load_weights, without_weights
from resdet.engine.classify import evaluate_classifier, open_labelled
from resdet.engine.distributed import World, choose_device, join_world
from resdet.engine.evaluate import evaluate, mask_gaps, predict_dataset
from resdet.engine.log import RunLog
from resdet.engine.saved_models import detector_of, read_models
from resdet.engine.state import Metrics
from resdet.errors import UserError
from resdet.evaluation.coco import backend_name
from resdet.files import readable_json, write_outputs
from resdet.models.build.detector import build_classifier
from resdet.text import first_few


def evaluate_checkpoint(
    path: Path,
    *,
    also: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    output: Path | None = None,
) -> Metrics:
    """The figures of a saved model on its config's val set, with `key=value` overrides of that config.

    It predicts with the parts of `config.test`, and those in `also`, which must have its classes, make it an ensemble.
    `output` is a folder for eval.json and predictions.json (COCO results). Raises UserError for a damaged checkpoint, a
    mistake in the overrides, data with none of the model's classes, or parts and models that do not go together.
    """
    models = read_models([path, *also], overrides)
    saved, config = models[0].saved, models[0].saved.config
    if config.task == "classification":
        if also:
            raise UserError(f"{path}: classifiers are evaluated one at a time; give one checkpoint")
        return evaluate_saved_classifier(saved, config, output)
    with join_world(config.train.device) as world, RunLog(None, steps=saved.step, speaks=world.leads) as log:
        detector = detector_of(models, choose_device(config.train.device, world))
        dataset = open_split(config.data, "val")
        if config.model.box_head:
            category_ids, absent = matched_categories(saved.class_names, dataset)
        else:  # proposals are of no class, and stand under the first one
            category_ids, absent = dataset.category_ids[:1], []
        gaps = mask_gaps(dataset) if config.model.mask_head else []
        skipped = [warning for model in models for warning in model.warnings]
        for warning in skipped + absent + gaps:
            log.warn(warning)
        for model in models:
            log.say(f"{model.file}: step {model.saved.step}")
        log.say(dataset.report.summary())
        results = predict_dataset(
            detector, dataset, config, category_ids=category_ids, world=world, progress=log.evaluating
        )
        metrics = evaluate(detector, dataset, config, results=results, world=world)
        if output and world.leads:
            figures = {**metrics, "backend": backend_name(config.eval.backend), "step": saved.step}
            found = {"eval.json": figures, "predictions.json": results.to_json()}
            write_outputs(output, {name: readable_json(content) for name, content in found.items()})
        return metrics


def evaluate_saved_classifier(saved: ModelFile, config: Config, output: Path | None) -> Metrics:
    """The same for a classifier, in one process; `output` is a folder for eval.json."""
    model = build_classifier(without_weights(config).model, len(saved.class_names))
    load_weights(model, saved.weights, "the checkpoint")
    train_set, val_set = open_labelled(config.data, "train"), open_labelled(config.data, "val")
    if val_set.class_names != saved.class_names:
        raise UserError(f"{val_set.annotations}: its classes are not the model's ({', '.join(saved.class_names)})")
    metrics = evaluate_classifier(model.to(choose_device(config.train.device, World())), train_set, val_set, config)
    if output:
        write_outputs(output, {"eval.json": readable_json({**metrics, "step": saved.step})})
    return metrics


def matched_categories(class_names: tuple[str, ...], dataset: CocoDataset) -> tuple[Int64[np.ndarray, " K"], list[str]]:
    """The data set's category id of each of the model's classes, by name, -1 where it has none, and a warning then.

    Raises UserError when no name is known to both.
    """
    ids = dict(zip(dataset.class_names, dataset.category_ids.tolist(), strict=True))
    missing = [name for name in class_names if name not in ids]
    if len(missing) == len(class_names):
        raise UserError(
            f"{dataset.annotations}: has none of the model's classes ({first_few(class_names)}); its categories"
            f" are {first_few(dataset.class_names)}: evaluate on data with the same names"
        )
    warnings = [f"{dataset.annotations} has no {', '.join(missing)}: left out of the figures"] if missing else []
    return np.array([ids.get(name, -1) for name in class_names], dtype=np.int64), warnings
