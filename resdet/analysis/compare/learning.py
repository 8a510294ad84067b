"""How quickly each contestant learns: the steps until it has the final AP of the first one, and AP over steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from resdet.analysis.compare.comparison import AP, Comparison, ContestantRecord, Reached, Run
from resdet.analysis.compare.plan import Contestant
from resdet.analysis.pages.figure import ANOTHER_FIGURE, png_of
from resdet.errors import UserError
from resdet.outputs import check_output, write_output

NO_CURVE = "--figure: no run is evaluated before its end; set eval.every, say eval.every=100"


def steps_to_reach(first: Sequence[Run], mine: Sequence[Run]) -> list[Reached]:
    """For each seed that both have: the first evaluated step at which a run has the final AP of the first contestant's
    run with that seed; None where it never has. Runs without a defined final AP are left out.
    """
    finals: Mapping[int, float] = {run.seed: final for run in first if (final := final_ap(run)) is not None}
    return [Reached(run.seed, _step_with(finals[run.seed], run)) for run in mine if run.seed in finals]


def final_ap(run: Run) -> float | None:
    """The AP of the last evaluation among the recorded ones; None without any or where it is undefined."""
    curve = run.curves.get(AP)
    return curve.values[-1] if curve else None


def _step_with(wanted: float, run: Run) -> int | None:
    curve = run.curves.get(AP)
    pairs = zip(curve.steps, curve.values, strict=True) if curve else ()
    return next((int(step) for step, value in pairs if value is not None and value >= wanted), None)


def reached_in_words(contestant: ContestantRecord) -> str:
    """The steps of all seeds, such as "75, 100, never of 150"."""
    steps = ", ".join("never" if one.step is None else str(one.step) for one in contestant.reaches_first)
    return f"{steps} of {contestant.training.steps}"


def check_figure(path: Path, contestants: Sequence[Contestant]) -> None:
    """Raises UserError, before any training, for a file that is not a figure of resdet, and for contestants that are
    evaluated only at the end.
    """
    if not any(contestant.config.eval.every for contestant in contestants):
        raise UserError(NO_CURVE)
    if path.suffix != ".png":
        raise UserError(f"--figure {path}: the figure is a PNG; end its name with .png")
    check_output(path, ANOTHER_FIGURE)


def draw_curves(content: Comparison, path: Path) -> None:
    """AP over steps as a PNG: for each contestant the mean of its seeds, and each seed as a thin line.

    Raises UserError where no contestant was evaluated before its end.
    """
    from matplotlib.figure import Figure  # the object interface: no display, no global state

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    drawn = [one for one in content.contestants if any(len(run.curves[AP].steps) > 1 for run in _with_curve(one))]
    if not drawn:
        raise UserError(NO_CURVE)
    for i, one in enumerate(drawn):
        color = f"C{i}"
        for run in _with_curve(one):
            axes.plot(run.curves[AP].steps, _plain(run.curves[AP].values), color=color, linewidth=0.7, alpha=0.45)
        steps, means = mean_curve(one)
        axes.plot(steps, means, color=color, linewidth=2, marker="o", markersize=3.5, label=one.name)
    axes.set(xlabel="step", ylabel="box AP", xlim=(0, None), ylim=(0, None))
    axes.set_title("mean of the seeds (thick), each seed (thin)", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    write_output(path, png_of(figure, dpi=110), ANOTHER_FIGURE)


def mean_curve(one: ContestantRecord) -> tuple[list[float], list[float]]:
    """The steps at which every seed has an AP, and the means there."""
    runs = _with_curve(one)
    by_step = [
        {s: v for s, v in zip(run.curves[AP].steps, run.curves[AP].values, strict=True) if v is not None}
        for run in runs
    ]
    steps = [step for step in runs[0].curves[AP].steps if all(step in values for values in by_step)] if runs else []
    return steps, [sum(values[step] for values in by_step) / len(by_step) for step in steps]


def _with_curve(one: ContestantRecord) -> list[Run]:
    return [run for run in one.runs if AP in run.curves]


def _plain(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
