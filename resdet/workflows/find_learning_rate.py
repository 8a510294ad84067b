"""A learning-rate range test as `resdet train --find-lr` makes it: the numbers, a plot and a suggestion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from resdet.analysis.pages.figure import png_of
from resdet.engine import train as engine
from resdet.engine.distributed import is_lead
from resdet.engine.train import RateTest
from resdet.errors import UserError
from resdet.files import readable_json, usable_paths
from resdet.outputs import check_outputs, signed, write_outputs
from resdet.workflows.train import ConfigLike, read_config

PLOT, NUMBERS = "lr_range.png", "lr_range.json"
STEPS = 100


@usable_paths()
def find_learning_rate(
    config: ConfigLike, output: str | Path, *, overrides: Sequence[str] = (), steps: int = STEPS
) -> RateTest:
    """Trains `steps` updates while the learning rate grows from 1e-6 to 10, and suggests a value of optim.lr.

    Writes lr_range.png and lr_range.json into the folder `output`, and no checkpoint. `config` and `overrides` are as
    in `resdet.train`. Raises UserError for a mistake in config, data or folder, and for a loss that is not finite at
    the lowest rates.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; --output takes a folder")
    check_outputs(folder, (PLOT, NUMBERS))
    test = engine.find_learning_rate(read_config(config, overrides), steps=steps)
    if is_lead():
        write_outputs(folder, {PLOT: plot(test), NUMBERS: readable_json(signed(asdict(test)))})
    return test


def plot(test: RateTest) -> bytes:
    """A PNG: the loss over optim.lr, its average, and the suggestion."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, alpha=0.35, label="loss")
    axes.plot(test.rates, test.smoothed, label="running average")
    if test.suggestion is not None:
        axes.axvline(test.suggestion, linestyle="--", label=f"steepest fall: {test.suggestion:g}")
    axes.set(xscale="log", xlabel="optim.lr", ylabel="loss", title="learning-rate range test")
    axes.legend()
    return png_of(figure, dpi=120)
