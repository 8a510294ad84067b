"""Evaluates as `resdet evaluate` does: figures, detections and drawings of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resdet.coco.results import CocoResults
from resdet.config import Config
from resdet.data.sets.coco import CocoDataset
from resdet.engine.distributed import is_lead
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.errors import UserError
from resdet.files import usable_paths
from resdet.predict.gallery import draw_gallery
from resdet.workflows.figures import WithFigures, attempt


@dataclass(frozen=True, eq=False, repr=False)
class Evaluated(WithFigures):
    """The figures of a model on a data set, and the detections that they count (None for a classifier).

    `output` is the folder that was written, `drawings` the sheet of pictures in it; `remarks` say why there is none.
    """

    figures: dict[str, float | None]
    config: Config
    dataset: CocoDataset | None
    detections: CocoResults | None
    output: Path | None = None
    drawings: Path | None = None
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = [f"{name} {value:.3f}" for name, value in self.figures.items() if value is not None]
        return f"<Evaluated: {', '.join(shown[:3]) or 'no figure is defined'}; {len(self.figures)} figures>"


@usable_paths()
def evaluate(
    checkpoint: str | Path,
    *,
    overrides: Sequence[str] = (),
    ensemble: Sequence[str | Path] = (),
    output: str | Path | None = None,
    pictures: bool = True,
) -> Evaluated:
    """Evaluates a run (its newest checkpoint), RUN/best, a checkpoint or a model file on its config's val set.

    `overrides` (key=value) change the config: other data, or the parts of `test`. The models in `ensemble`, which must
    have the same classes, are combined with it. `output` is a folder for eval.json, predictions.json and, with
    `pictures`, drawings.

    Raises UserError for a damaged checkpoint, a mistake in the overrides, and data with none of the model's classes.
    """
    if isinstance(overrides, str):
        raise UserError(f"overrides={overrides!r} is one text; give a list, [{overrides!r}]")
    folder = None if output is None else Path(output)
    done = evaluate_checkpoint(
        Path(checkpoint), also=[Path(path) for path in ensemble], overrides=overrides, output=folder
    )
    drawings, remarks = None, ()
    if folder and pictures and is_lead() and done.dataset is not None and done.found is not None:
        draw = partial(draw_gallery, done.found, done.categories, done.dataset, done.config, folder)
        drawings, remarks = attempt(draw, "no drawings: {error}")
    return Evaluated(done.figures, done.config, done.dataset, done.counted, folder, drawings, remarks)
