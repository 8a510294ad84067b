"""The results of a probe as a page of plots, as JSON and as a figure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from resdet.analysis.pages.figure import ANOTHER_FIGURE, png_of
from resdet.analysis.pages.page import Page, Section, columns, details, render_page, table
from resdet.analysis.pages.plots import Line, legend_of, line_plot, y_range_of
from resdet.analysis.probe.layers import LayerSignal, Snapshot
from resdet.outputs import signed, write_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Seen = Mapping[str, Sequence[Snapshot]]  # by the name of a network


@dataclass(frozen=True)
class Quantity:
    """A plotted quantity of each layer: `of` gives its number, or None if the layer has none."""

    anchor: str
    title: str
    lead: str
    of: Callable[[LayerSignal], float | None]
    log_y: bool

    def seen_in(self, seen: Seen) -> bool:
        """Whether the last snapshot has this quantity."""
        return any(self.of(layer) is not None for snapshots in seen.values() for layer in snapshots[-1].layers)


GRADIENT = Quantity(
    "gradients",
    "Gradient norm of the weights",
    "A gradient that vanishes on its way down is small on the left; one that vanishes everywhere is a low line.",
    lambda layer: layer.gradient,
    log_y=True,
)
RESPONSE = Quantity(
    "responses",
    "Standard deviation of the responses",
    "After the layer's norm, before ReLU and addition (He et al. 2015, Fig. 7).",
    lambda layer: layer.response,
    log_y=False,
)
UPDATE = Quantity(
    "updates",
    "Update over weight",
    "The L2 norm of what one update changes over that of the weight: about 0.001 is usual, 0 learns nothing.",
    lambda layer: layer.update,
    log_y=True,
)
QUANTITIES = (GRADIENT, RESPONSE, UPDATE)


def to_json(seen: Seen) -> str:
    """{"resdet": version, "nets": {name: [{"step", "loss", "layers": [{"name", "gradient", ...}]}]}}"""
    nets = {name: [asdict(snapshot) for snapshot in snapshots] for name, snapshots in seen.items()}
    return json.dumps(signed({"nets": nets}), indent=1, ensure_ascii=False) + "\n"


def to_page(seen: Seen) -> str:
    """The page: each quantity by layer at the first, the middle and the last snapshot, and over the steps."""
    steps = sorted({snapshot.step for snapshots in seen.values() for snapshot in snapshots})
    looks = (
        f"{len(steps)} looks, updates {steps[0]} to {steps[-1]}" if len(steps) > 1 else f"one look, update {steps[0]}"
    )
    sections = [
        Section(quantity.anchor, quantity.title, _plots(seen, quantity), quantity.lead)
        for quantity in QUANTITIES
        if quantity.seen_in(seen)
    ]
    rows = summary_rows(seen)
    summary = table(list(rows[0]), [list(row.values()) for row in rows])
    sections = [Section("summary", "Summary", summary, "At the last look; first and last are layers."), *sections]
    sections.append(Section("layers", "All layers", Markup("").join(_layers(*net) for net in seen.items())))
    return render_page(Page("Signals inside nets", sections, kicker="resdet probe", facts=[f"{len(seen)} nets", looks]))


def _plots(seen: Seen, quantity: Quantity) -> Markup:
    """The plots of a quantity below one legend; the looks share a range of y, so that they can be compared."""
    of, log_y = quantity.of, quantity.log_y
    looks = _looks(seen)
    by_layer = [_by_layer(look, of) for look in looks]
    y_range = y_range_of([line for lines in by_layer for line in lines], log_y=log_y)
    draw = partial(line_plot, log_y=log_y, legend=False)
    parts = [
        draw(lines, title=_at_update(look), x_label="layer", y_range=y_range)
        for look, lines in zip(looks, by_layer, strict=True)
    ]
    if quantity is RESPONSE:
        lines = [Line(name, *_numbered(_largest_first(shot, of))) for name, shot in looks[-1].items()]
        title = f"{_at_update(looks[-1])}, sorted"
        parts.append(draw(lines, title=title, x_label="rank of the layer", y_range=y_range))
    if any(len(snapshots) > 1 for snapshots in seen.values()):
        over = [
            Line(name, [float(shot.step) for shot in snapshots], [_median(shot, of) for shot in snapshots], points=True)
            for name, snapshots in seen.items()
        ]
        parts.append(draw(over, title="Median of the layers", x_label="update"))
    return legend_of(by_layer[-1]) + columns(*parts)


def _looks(seen: Seen) -> list[dict[str, Snapshot]]:
    """The first, the middle and the last snapshot of each network; fewer where they are the same."""
    looks = [
        {name: snapshots[round(share * (len(snapshots) - 1))] for name, snapshots in seen.items()}
        for share in (0.0, 0.5, 1.0)
    ]
    return [look for index, look in enumerate(looks) if look not in looks[:index]]


def _by_layer(shots: Mapping[str, Snapshot], of: Callable[[LayerSignal], float | None]) -> list[Line]:
    return [Line(name, *_numbered([of(layer) for layer in shot.layers])) for name, shot in shots.items()]


def _numbered(values: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    return [float(number) for number in range(1, len(values) + 1)], list(values)


def _largest_first(shot: Snapshot, of: Callable[[LayerSignal], float | None]) -> list[float | None]:
    return [*sorted((value for layer in shot.layers if (value := of(layer)) is not None), reverse=True)]


def _median(shot: Snapshot, of: Callable[[LayerSignal], float | None]) -> float | None:
    values = _largest_first(shot, of)
    return values[len(values) // 2] if values else None


def _at_update(shots: Mapping[str, Snapshot]) -> str:
    """The title of a look; networks of runs were looked at after different numbers of updates."""
    steps = sorted({shot.step for shot in shots.values()})
    return f"At update{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}"


def _layers(name: str, snapshots: Sequence[Snapshot]) -> Markup:
    rows = [[layer.name, *map(short, (layer.gradient, layer.response, layer.update))] for layer in snapshots[-1].layers]
    return details(f"{name}, update {snapshots[-1].step}", table(["layer", "gradient", "response", "update"], rows))


def short(value: float | None) -> str:
    """Three significant digits, with a power of ten for small or large numbers; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.3g}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.1e}"


def summary_rows(seen: Seen) -> list[dict[str, str]]:
    """One row per network, from its last snapshot."""
    rows = []
    for name, snapshots in seen.items():
        shot = snapshots[-1]
        rows.append(
            {
                "net": name,
                "update": str(shot.step),
                "loss": short(shot.loss),
                "layers": str(len(shot.layers)),
                "gradient first": short(shot.layers[0].gradient),
                "gradient last": short(shot.layers[-1].gradient),
                "median response": short(_median(shot, RESPONSE.of)),
                "median update": short(_median(shot, UPDATE.of)),
            }
        )
    return rows


def draw_figure(seen: Seen, path: Path) -> None:
    """Writes the figure as a PNG. Raises UserError if it cannot."""
    write_output(path, png_of(figure_of(seen), dpi=90), ANOTHER_FIGURE)


def figure_of(seen: Seen) -> Figure:
    """The quantities by layer, side by side: a row for each look of the page."""
    from matplotlib.figure import Figure  # the object interface: no display, no global state

    shown, looks = [quantity for quantity in QUANTITIES if quantity.seen_in(seen)], _looks(seen)
    figure = Figure(figsize=(5 * len(shown), 0.8 + 2.8 * len(looks)), layout="constrained")
    rows = figure.subplots(len(looks), len(shown), squeeze=False, sharex=True, sharey="col")
    for row, look in zip(rows, looks, strict=True):
        for axes, quantity in zip(row, shown, strict=True):
            for line in _by_layer(look, quantity.of):
                axes.plot(line.x, [math.nan if y is None else y for y in line.y], label=line.name, linewidth=1.4)
            axes.set_yscale("log" if quantity.log_y else "linear")
            axes.grid(alpha=0.3)
        row[0].set_ylabel(_at_update(look))
    for axes, quantity in zip(rows[0], shown, strict=True):
        axes.set_title(quantity.title)
    for axes in rows[-1]:
        axes.set_xlabel("layer")
    figure.axes[0].legend(fontsize=8)
    return figure
