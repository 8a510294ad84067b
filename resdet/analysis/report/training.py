"""The course of training: losses, figures over time, learning rate and speed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from resdet.analysis.pages.page import Section, columns, note
from resdet.analysis.pages.plots import Line, line_plot
from resdet.engine.run_folder import RunFolder

SMOOTHED = 1 / 25  # how far the running average reaches to each side, as a fraction of the points
LEAST_REACH = 5  # points: the average of fewer follows each of them
FEWEST_TO_SMOOTH = 30  # points
OVER_TIME: dict[str, tuple[str, ...]] = {
    "Average precision": ("bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "voc/AP50"),
    "Average recall of the proposals": ("recall/AR100", "recall/AR300", "recall/AR1000"),
    "Accuracy": ("top1/accuracy",),
}
LABELS = {"bbox/AP": "box AP", "bbox/AP50": "box AP50", "bbox/AP75": "box AP75", "segm/AP": "mask AP"}


def training_section(run: RunFolder) -> Section:
    """The curves of metrics.jsonl."""
    steps, loss = run.series("loss")
    if not steps:
        body = note("metrics.jsonl has no losses yet: they come with the first train.log_every steps.")
        return Section("training", "Training", body)
    parts = sorted({name for _, values in run.records for name in values if name.startswith("loss_")})
    plots = [
        line_plot([*_smooth("loss", steps, loss, 1), *_val_loss(run)], title="Loss", x_label="step"),
        *_parts_plot(run, parts),
        line_plot([Line("learning rate", *run.series("lr"))], title="Learning rate", x_label="step"),
        line_plot(
            _smooth("images a second", *run.series("images_per_second"), 3),
            title="Speed, images a second",
            x_label="step",
        ),
        line_plot(
            _smooth("gradient norm", *run.series("grad_norm"), 5), title="Gradient norm before clipping", x_label="step"
        ),
    ]
    curves, remarks = _evaluations(run)
    lead = "Pale: as logged. Strong: smoothed over neighbouring steps."
    body = columns(*curves, *plots) + Markup("").join(map(note, remarks))
    return Section("training", "Training", body, lead if len(steps) >= FEWEST_TO_SMOOTH else "")


def _val_loss(run: RunFolder) -> list[Line]:
    steps, values = run.series("val/loss")
    return [Line("on the val images", steps, values, 2, points=True)] if steps else []


def _parts_plot(run: RunFolder, parts: Sequence[str]) -> list[Markup]:
    if len(parts) < 2:
        return []
    lines = [
        line
        for color, name in enumerate(parts, start=1)
        for line in _smooth(name.removeprefix("loss_"), *run.series(name), 1 + color % 8)
        if not line.faint
    ]
    return [line_plot(lines, title="What the loss is made of", x_label="step")]


def _evaluations(run: RunFolder) -> tuple[list[Markup], list[str]]:
    """The curves of figures that several evaluations have, and remarks about those that one has."""
    plots: list[Markup] = []
    remarks: list[str] = []
    for title, names in OVER_TIME.items():
        lines: list[Line] = []
        for name in names:
            steps, values = run.series(name)
            if any(value is not None for value in values):
                lines.append(Line(LABELS.get(name, name), steps, values, points=True))
        if lines and max(len(line.x) for line in lines) > 1:
            plots.append(line_plot(lines, title=f"{title} over time", x_label="step"))
        elif lines:
            remarks.append(f"{title} over time: there is one evaluation; eval.every=N makes one every N steps.")
    return plots, remarks


def _smooth(name: str, x: Sequence[float], y: Sequence[float | None], color: int) -> list[Line]:
    """The line and its running average; a short line is returned without an average."""
    if len(x) < FEWEST_TO_SMOOTH:
        return [Line(name, x, y, color)]
    reach = max(LEAST_REACH, math.ceil(len(x) * SMOOTHED))
    return [Line(name, x, y, color, faint=True), Line(name, x, running_mean(y, reach), color)]


def running_mean(values: Sequence[float | None], reach: int) -> list[float | None]:
    """The value at each place of the straight line through the defined neighbours, up to `reach` on each side.

    Where all are defined this is their mean. Towards an end there are more neighbours on the other side, so that their
    number stays 2 * reach + 1: the line through fewer and fewer of them would end in the last value. The line follows
    the course, while a mean would lag behind it.
    """
    means: list[float | None] = []
    sums = _Sums(values)
    for i in range(len(values)):
        first = max(0, min(i - reach, len(values) - 2 * reach - 1))
        means.append(sums.line(first, min(len(values), first + 2 * reach + 1), i))
    return means


class _Sums:
    """Running sums of the defined values, for the lines through any stretch of them."""

    def __init__(self, values: Sequence[float | None]) -> None:
        given = [(float(k), v) for k, v in enumerate(values) if v is not None and math.isfinite(v)]
        x = np.zeros(len(values))
        y, known = x.copy(), x.copy()
        for k, value in given:
            x[int(k)], y[int(k)], known[int(k)] = k, value, 1.0
        self._sums = np.concatenate([np.zeros((5, 1)), np.cumsum([known, x, x * x, y, x * y], axis=1)], axis=1)

    def line(self, first: int, end: int, at: int) -> float | None:
        """The line through the values first .. end - 1, at a place."""
        count, x, squares, y, products = (self._sums[:, end] - self._sums[:, first]).tolist()
        if not count:
            return None
        spread = squares - x * x / count
        slope = (products - x * y / count) / spread if spread > 0.25 else 0.0  # of two neighbours it is 0.5
        return y / count + slope * (at - x / count)
