"""The figure that chooses the best checkpoint: the task's main one, or that of `eval.best`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resdet.config import Config
from resdet.engine.task.interface import Task
from resdet.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Goal:
    """A figure by which evaluations are compared; `words` are its name in the log."""

    name: str
    words: str
    higher_is_better: bool = True

    def improves(self, value: float | None, best: float | None) -> bool:
        """Whether a value is better than the best so far (None: there is none). An undefined value (None) never is."""
        if value is None or best is None:
            return value is not None
        return value > best if self.higher_is_better else value < best


def goal_of(task: Task[Any], config: Config, class_names: Sequence[str]) -> Goal:
    """Raises UserError for a figure that the evaluations of this config do not have."""
    name = config.eval.best
    if name is None:
        return Goal(task.headline, task.headline_words)
    base, class_name = _divided(name)
    row = next((row for row in task.figure_rows(config) if re.fullmatch(row.name, base)), None)
    if row is None or (base.startswith("segm/") and not config.model.mask_head):
        raise UserError(f"eval.best={name}: the evaluations have no such figure{_hint(task, config, base)}")
    if class_name is not None and (class_name not in class_names or base.split("/")[1] not in ("AP", "AR", "AP50")):
        raise UserError(f"eval.best={name}: is no figure of a class of the data{did_you_mean(class_name, class_names)}")
    return Goal(name, name, row.higher_is_better)


def _divided(name: str) -> tuple[str, str | None]:
    """`bbox/AP/traffic light`: the figure over all classes and the name of a class, which may have slashes."""
    kind, _, rest = name.partition("/")
    figure, slash, class_name = rest.partition("/")
    return f"{kind}/{figure}", class_name if slash else None


def _hint(task: Task[Any], config: Config, base: str) -> str:
    if base.startswith("val/") and not config.eval.loss and task.has_detections:
        return "; set eval.loss=true for it"
    if base.startswith("segm/"):
        return "; it comes with a mask head (model.mask_head.name=fcn)"
    if base.startswith(("voc/", "ilsvrc/", "loc/")):
        return "; it comes with another eval.metric (voc07, voc12, ilsvrc_det, ilsvrc_loc)"
    return did_you_mean(
        base,
        [task.headline, "bbox/AP50", "bbox/AP75", "bbox/AR100"]
        if task.has_detections
        else [task.headline, "top1/error", "top5/error", "top1/loss"],
    )
