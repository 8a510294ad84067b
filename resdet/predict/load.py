"""Loads a trained detector for prediction, for the command `resdet predict` and for Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resdet.data.batches.collate import size_divisor
from resdet.engine.compilation import compiled
from resdet.engine.distributed import World, choose_device, half_precision, memory_format
from resdet.engine.saved_models import detector_of, read_models
from resdet.errors import UserError
from resdet.files import usable_paths
from resdet.predict.predictor import Origin, Predictor


@usable_paths()
def load(
    checkpoint: str | Path,
    *,
    overrides: Sequence[str] = (),
    ensemble: Sequence[str | Path] = (),
    device: str | None = None,
    world: World = World(),  # noqa: B008  # a frozen value
) -> Predictor:
    """The detector of a run, a checkpoint or a model file, ready to predict.

    `checkpoint` is a run (its best checkpoint, or the newest if it has no best one), RUN/best, RUN/last, a checkpoint's
    folder or a model.safetensors. `overrides` (key=value) change its config, for example test.augmentation.flip=true or
    model.box_head.score_threshold=0.3. The detectors in `ensemble`, which must have the same classes, are combined with
    it. `device` is "cpu", "cuda", or "auto" (a GPU where there is one, the default); of several GPUs a process of
    `world` takes its own.

    Raises UserError for a file that is missing, damaged or not a detector, and for a mistake in the overrides.
    """
    if isinstance(overrides, str):
        raise UserError(f"overrides={overrides!r} is one text; give a list, [{overrides!r}]")
    paths = [Path(checkpoint), *map(Path, ensemble)]
    chosen = [] if device is None else [f"train.device={device}"]
    models = read_models(paths, ["train.device=auto", *overrides, *chosen], best=True)
    saved = models[0].saved
    config = saved.config
    place = choose_device(config.train.device, world)
    return Predictor(
        compiled(detector_of(models, place), config.test),
        short_side=config.data.augment.test_short_side,
        max_side=config.data.augment.max_side,
        size_divisor=size_divisor(config.model),
        class_names=saved.class_names,
        category_ids=saved.category_ids,
        batch_size=config.eval.batch_size,
        half=half_precision(config.train, place),
        layout=memory_format(config.train),
        sixteen_bit=config.data.sixteen_bit,
        origin=Origin(
            files=tuple(model.file for model in models),
            step=saved.step,
            config=config,
            remarks=tuple(line for model in models for line in model.warnings),
        ),
    )
