"""A comparison on the terminal: figures, differences to the first contestant, costs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resdet.analysis.compare.comparison import Comparison, ContestantRecord
from resdet.analysis.compare.learning import reached_in_words
from resdet.analysis.compare.numbers import GIGA, MEBI, MILLION, UNDEFINED, between, percent, signed, significant, three
from resdet.analysis.compare.verdict import SIGNIFICANT
from resdet.text import printable

WIDTH_OF_FILES = 120


def print_comparison(content: Comparison, console: Console | None = None) -> None:
    """Prints the content of compare.json as tables."""
    console = console or _console()
    contestants = content.contestants
    for kind in content.kinds:
        console.print(figures_table(contestants, kind))
        if len(contestants) > 1:
            console.print(differences_table(contestants, kind, content.first))
    for one in contestants:
        if one.reaches_first:
            text = f"{one.name} has the final AP of {content.first} after {reached_in_words(one)} steps (seed by seed)"
            console.print(Text("\n" + printable(text)), soft_wrap=True)
    console.print(cost_table(contestants))
    console.print(speed_table(contestants))
    for name, reason in content.missing.items():
        console.print(Text(printable(f"missing: {name}: {reason}"), style="yellow"), soft_wrap=True)


def _console() -> Console:
    """The console; a file or a pipe has no width, so tables are not cut there."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_OF_FILES)


def figures_table(contestants: Sequence[ContestantRecord], kind: str) -> Table:
    """The means over the seeds; the interval is over images, the standard deviation over seeds."""
    table = _table(f"{kind}: mean over seeds, 95 % interval over images, deviation over seeds")
    _add_columns(table, "backbone", "seeds", "AP", "95 %", "seed std", "AP50", "AR100", "APs", "APm", "APl")
    for one in contestants:
        figures = one.figures
        ap = figures[f"{kind}/AP"]
        others = (figures[f"{kind}/{name}"].mean for name in ("AP50", "AR100", "APs", "APm", "APl"))
        interval = between(ap.image_low, ap.image_high)
        row = [str(len(ap.seeds)), three(ap.mean), interval, three(ap.seed_std), *map(three, others)]
        table.add_row(_name(one), *row)
    return table


def differences_table(contestants: Sequence[ContestantRecord], kind: str, first: str) -> Table:
    """The differences; the interval includes the variation over images and, with two seeds or more, over seeds."""
    table = _table(f"{kind}/AP less that of {printable(first)}; detectable: what such a comparison finds 4 times of 5")
    _add_columns(table, "backbone", "difference", "95 %", "relative", "verdict", "detectable")
    for one in contestants:
        if difference := one.against_first.get(f"{kind}/AP"):
            table.add_row(
                _name(one),
                signed(difference.difference),
                between(difference.low, difference.high, plus=True),
                percent(difference.relative),
                Text(difference.verdict, style="green" if difference.verdict == SIGNIFICANT else ""),
                three(difference.detectable),
            )
    return table


def cost_table(contestants: Sequence[ContestantRecord]) -> Table:
    size = " or ".join(sorted({"x".join(map(str, one.cost.size)) for one in contestants}))
    table = _table(f"parameters (M), and multiply-adds (G) of one image of {size}")
    _add_columns(table, "backbone", "parameters", "multiply-adds", "trunk", "neck", "RPN", "heads")
    for one in contestants:
        parameters, operations = one.cost.parameters, one.cost.multiply_adds
        counted = (significant(getattr(operations, part) / GIGA) for part in ("total", "trunk", "neck", "rpn", "heads"))
        table.add_row(_name(one), significant(parameters.total / MILLION), *counted)
    return table


def speed_table(contestants: Sequence[ContestantRecord]) -> Table:
    table = _table("training and prediction")
    _add_columns(table, "backbone", "s/step", "images/s", "peak MiB", "trained on", "predicts images/s")
    for one in contestants:
        training, prediction = one.training, one.prediction
        memory = training.peak_memory_bytes
        table.add_row(
            _name(one),
            significant(training.seconds_per_step),
            significant(training.images_per_second),
            UNDEFINED if memory is None else f"{memory / MEBI:.0f}",
            printable(", ".join(training.devices)) or UNDEFINED,
            significant(prediction.images_per_second) if prediction else UNDEFINED,
        )
    return table


def _table(title: str) -> Table:
    return Table(
        title=f"\n{title}", title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False
    )


def _add_columns(table: Table, name: str, *columns: str) -> None:
    """Adds a name column, which wraps if space is short, and number columns, which do not wrap."""
    table.add_column(name, overflow="fold", min_width=8)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)


def _name(contestant: ContestantRecord) -> Text:
    return Text(printable(contestant.name))
