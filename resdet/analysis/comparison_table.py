"""A comparison on the terminal: figures, differences against the first, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resdet.analysis.verdict import SIGNIFICANT
from resdet.engine.log import printable

GIGA, MEBI, MILLION = 1e9, 2**20, 1e6
UNDEFINED = "-"


def print_comparison(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Tables of what compare.json holds."""
    console = console or Console()
    contestants = content["contestants"]
    for kind in dict.fromkeys(name.partition("/")[0] for name in contestants[0]["figures"]):
        console.print(figures_table(contestants, kind))
        if len(contestants) > 1:
            console.print(differences_table(contestants, kind, content["first"]))
    console.print(cost_table(contestants))
    for name, reason in content["missing"].items():
        console.print(Text(printable(f"missing: {name}: {reason}"), style="yellow"), soft_wrap=True)


def figures_table(contestants: Sequence[Mapping[str, Any]], kind: str) -> Table:
    """Means over the seeds; the interval is over images, the deviation over seeds."""
    table = _table(f"{kind}, mean over seeds", "backbone", "seeds", "AP", "95 % over images", "seed std", "AP50", "AP75",
                   "AR100", "APs", "APm", "APl")  # fmt: skip
    for one in contestants:
        figures = one["figures"]
        ap = figures[f"{kind}/AP"]
        others = (figures[f"{kind}/{name}"]["mean"] for name in ("AP50", "AP75", "AR100", "APs", "APm", "APl"))
        interval = between(ap["image_low"], ap["image_high"])
        row = [str(len(ap["seeds"])), three(ap["mean"]), interval, three(ap["seed_std"]), *map(three, others)]
        table.add_row(_name(one), *row)
    return table


def differences_table(contestants: Sequence[Mapping[str, Any]], kind: str, first: str) -> Table:
    """The interval carries images and, with two seeds or more, seeds."""
    table = _table(
        f"{kind}/AP against {printable(first)}", "backbone", "difference", "95 %", "relative", "verdict", "detectable"
    )
    for one in contestants:
        if difference := one["against_first"].get(f"{kind}/AP"):
            table.add_row(
                _name(one),
                signed(difference["difference"]),
                between(difference["low"], difference["high"], plus=True),
                percent(difference["relative"]),
                Text(difference["verdict"], style="green" if difference["verdict"] == SIGNIFICANT else ""),
                three(difference["detectable"]),
            )
    return table


def cost_table(contestants: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("cost of one image, training and prediction", "backbone", "parameters (M)", "GMAC", "trunk", "neck",
                   "RPN", "heads", "s/step", "train images/s", "peak MiB", "predict images/s")  # fmt: skip
    for one in contestants:
        parameters, operations = one["cost"]["parameters"], one["cost"]["multiply_adds"]
        training, prediction = one["training"], one["prediction"]
        memory = training["peak_memory_bytes"]
        table.add_row(
            _name(one),
            f"{parameters['total'] / MILLION:.2f}",
            *(f"{operations[part] / GIGA:.2f}" for part in ("total", "trunk", "neck", "rpn", "heads")),
            significant(training["seconds_per_step"]),
            significant(training["images_per_second"]),
            UNDEFINED if memory is None else f"{memory / MEBI:.0f}",
            significant(prediction["images_per_second"]) if prediction else UNDEFINED,
        )
    return table


def _table(title: str, name: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column(name, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _name(contestant: Mapping[str, Any]) -> Text:
    return Text(printable(contestant["name"]))


def three(value: float | None) -> str:
    """With three decimals; a dash where undefined, here and below."""
    return UNDEFINED if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:+.3f}"


def percent(value: float | None) -> str:
    return UNDEFINED if value is None else f"{100 * value:+.1f} %"


def between(low: float | None, high: float | None, *, plus: bool = False) -> str:
    """An interval."""
    if low is None or high is None:
        return UNDEFINED
    return f"{signed(low)} .. {signed(high)}" if plus else f"{low:.3f} .. {high:.3f}"


def significant(value: float | None) -> str:
    """With three significant digits."""
    if value is None:
        return UNDEFINED
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
