"""Evaluates a saved model, for `resdet evaluate` and for Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resdet.engine.compilation import compiled
from resdet.engine.distributed import choose_device, join_world
from resdet.engine.log import RunLog
from resdet.engine.machine import enough_memory
from resdet.engine.run_folder import RunFiles
from resdet.engine.saved_models import classifier_of, detector_of, read_models
from resdet.engine.task.interface import Evaluation
from resdet.engine.task.table import task_of


def evaluate_checkpoint(
    path: Path,
    *,
    also: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    output: Path | None = None,
) -> Evaluation:
    """Evaluates a saved model on its config's val set, with `key=value` overrides of that config.

    A model predicts with the parts of `config.test`; the models in `also`, which must have the same classes, form an
    ensemble with it. `output` is a folder for the figures and the detections that they count (COCO results). Raises
    UserError for a damaged checkpoint, a mistake in the overrides, data with none of the model's classes, parts and
    models that do not go together, or an `output` with such files that are not resdet's.
    """
    if output:
        RunFiles(output).check_evaluation()
    models = read_models([path, *also], overrides)
    saved, config = models[0].saved, models[0].saved.config
    task = task_of(config)
    with join_world(config.train.device) as world, RunLog(None, steps=saved.step, speaks=world.leads) as log:
        device = choose_device(config.train.device, world)
        model = detector_of(models, device) if task.has_detections else classifier_of(models, device)
        model = compiled(model, config.test)
        for each in models:
            for warning in each.warnings:
                log.warn(warning)
            log.say(f"{each.file}: step {each.saved.step}")
        with enough_memory(device, "lower eval.batch_size or data.augment.test_short_side, or set train.device=cpu"):
            evaluation = task.evaluate_saved(
                model, saved.class_names, config, world=world, say=log.say, warn=log.warn, progress=log.evaluating
            )
        for note in evaluation.notes:
            log.warn(note)
        if output and world.leads:
            RunFiles(output).write_evaluation(
                evaluation.figures, step=saved.step, backend=evaluation.backend, results=evaluation.counted
            )
        return evaluation
