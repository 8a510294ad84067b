"""A comparison as one page: the tables of compare.json, plots, and a summary in words."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from resdet.analysis.compare.comparison import AP, Comparison, ContestantRecord, Figure, FigureDifference
from resdet.analysis.compare.learning import reached_in_words
from resdet.analysis.compare.numbers import GIGA, MEBI, MILLION, between, percent, signed, significant, three
from resdet.analysis.compare.summary import FEW, headlines, summary
from resdet.analysis.compare.verdict import FEWEST_IMAGES, ONE_SEED, SIGNIFICANT
from resdet.analysis.pages.interval_plots import Estimate, cost_plot, interval_plot
from resdet.analysis.pages.page import (
    UNDEFINED,
    Page,
    Section,
    code,
    columns,
    count,
    details,
    key,
    name_of,
    note,
    render_page,
    table,
)
from resdet.analysis.pages.plots import MOST_COLORS, Line, line_plot

PARTS = ("total", "trunk", "neck", "rpn", "heads")
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
COMPARED = ("difference", "95 %", "over images", "over seeds", "relative", "verdict", "detectable")
KINDS = {"bbox": "boxes", "segm": "masks"}


def comparison_page(content: Comparison) -> str:
    """The page with the content of compare.json."""
    contestants = content.contestants
    first, *others = contestants
    steps = ", ".join(sorted({count(one.training.steps) for one in contestants}))
    seeds = sorted({len(one.runs) for one in contestants})
    sections = [
        _figures(content),
        *([_differences(first, others, content)] if others else []),
        _costs(contestants, content),
        _learning(first, others),
        _classes(first, others),
        _method(contestants, content),
    ]
    return render_page(
        Page(
            title=_title(first, others),
            kicker="resdet compare",
            facts=[
                f"{' to '.join(str(n) for n in (seeds[0], seeds[-1])[: len(seeds)])} seed{'s' * (seeds[-1] > 1)} each",
                f"{steps} steps",
                f"{count(content.val.images)} images scored, {count(content.val.objects)} objects",
                content.val.annotations,
            ],
            headlines=headlines(first, others),
            summary=summary(first, others, content),
            sections=sections,
            footer=f"resdet {content.resdet}",
        )
    )  # fmt: skip


def _title(first: ContestantRecord, others: Sequence[ContestantRecord]) -> str:
    if not others:
        return first.name
    names = ", ".join(other.name for other in others) if len(others) < 4 else f"{len(others)} backbones"
    return f"{names} against {first.name}"


def _figures(content: Comparison) -> Section:
    contestants = content.contestants
    parts: list[Markup] = []
    for kind in content.kinds:
        estimates = [_estimate(one, one.figures[f"{kind}/AP"]) for one in contestants]
        known = [estimate for estimate in estimates if estimate]
        rows = [
            [name_of(one.name), len(one.runs), *(one.figures[f"{kind}/{name}"].mean for name in FIGURES),
             _spread(one.figures[f"{kind}/AP"])]
            for one in contestants
        ]  # fmt: skip
        parts.append(_titled(f"Figures of {KINDS[kind]}", ["backbone", "seeds", *FIGURES, "AP over seeds"], rows))
        if known:
            parts.append(
                interval_plot(
                    known, title=f"AP of {KINDS[kind]}", x_label="AP; line: 95 % over images; small dots: seeds"
                )
            )
    return Section(
        "figures", "Figures", Markup("").join(parts),
        lead="Means over seeds, in [0, 1]. The interval says what other images would change, the dots what seeds did.",
    )  # fmt: skip


def _titled(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    return Markup("<h3>{}</h3>{}").format(title, table(head, rows))


def _estimate(one: ContestantRecord, figure: Figure) -> Estimate | None:
    if figure.mean is None:
        return None
    return Estimate(one.name, figure.mean, figure.image_low, figure.image_high, figure.seeds)


def _spread(figure: Figure) -> str:
    if figure.seed_std is None:
        return UNDEFINED
    return _unbroken(f"± {figure.seed_std:.3f}, {figure.min:.3f} .. {figure.max:.3f}")


def _differences(first: ContestantRecord, others: Sequence[ContestantRecord], content: Comparison) -> Section:
    parts: list[Markup] = []
    for kind in content.kinds:
        known = [
            Estimate(other.name, difference.difference, difference.low, difference.high)
            for other in others
            if (difference := other.against_first[f"{kind}/AP"]).difference is not None
        ]
        if known:
            title = f"AP of {KINDS[kind]} less that of {first.name}"
            label = "difference of AP; line: 95 % interval of the verdict"
            parts.append(interval_plot(known, title=title, x_label=label, zero=True, first_color=2))
        if len(others) > 1:
            rows = [_difference_row(name_of(other.name), other.against_first[f"{kind}/AP"]) for other in others]
            parts.append(_titled(f"AP of {KINDS[kind]}, less that of {first.name}", ["backbone", *COMPARED], rows))
        for other in others:
            rows = [_difference_row(name, other.against_first[f"{kind}/{name}"]) for name in FIGURES]
            caption = f"{other.name}: figures of {KINDS[kind]}, less those of {first.name}"
            head = ["figure", *COMPARED]
            many = len(others) > FEW
            parts.append(details(caption, table(head, rows)) if many else _titled(caption, head, rows))
    return Section("differences", f"Against {first.name}", Markup("").join(parts), lead=_verdict_rule(content))


def _difference_row(name: str | Markup, difference: FigureDifference) -> list[object]:
    return [
        name,
        signed(difference.difference),
        _unbroken(between(difference.low, difference.high, plus=True)),
        _unbroken(between(difference.image_low, difference.image_high, plus=True)),
        _unbroken(between(difference.seed_low, difference.seed_high, plus=True)),
        _unbroken(percent(difference.relative)),
        Markup("<strong>{}</strong>").format(difference.verdict)
        if difference.verdict == SIGNIFICANT
        else _unbroken(difference.verdict),
        three(difference.detectable),
    ]


def _unbroken(text: str) -> str:
    """On one line also in a narrow column."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _verdict_rule(content: Comparison) -> str:
    return (
        "Significant is a difference whose 95 % interval over images and seeds together excludes 0. Over images:"
        f" {content.bootstrap.resamples} resamples of the images, the same for all detectors (percentiles)."
        " Over seeds: Welch's t. The two half-widths are joined by the root of the sum of their squares. One seed"
        f" leaves its spread unknown and so carries no significance (“{ONE_SEED}”), nor do fewer than {FEWEST_IMAGES}"
        " images."
        " Detectable is the true difference that four of five such comparisons would find. Every row stands for itself:"
        " the level is not corrected for their number."
    )


def _costs(contestants: Sequence[ContestantRecord], content: Comparison) -> Section:
    sizes = sorted({one.cost.size for one in contestants})
    size = ", ".join(f"{height} x {width}" for height, width in sizes)
    points = [
        (estimate, one.cost.multiply_adds.total / GIGA)
        for one in contestants
        if (estimate := _estimate(one, one.figures[AP]))
    ]
    parts: list[Markup] = []
    if points:
        title = "AP over multiply-adds"
        parts.append(cost_plot(points, title=title, x_label="multiply-adds of an image (G)", y_label="box AP"))
    head = ["backbone", "total", "trunk", "neck", "RPN", "heads"]
    for amount, unit, caption in (
        ("multiply_adds", GIGA, f"Multiply-adds of one image of {size} pixels (G)"),
        ("parameters", MILLION, "Parameters (M)"),
    ):
        rows = [
            [name_of(one.name), *(significant(getattr(getattr(one.cost, amount), part) / unit) for part in PARTS)]
            for one in contestants
        ]  # fmt: skip
        parts.append(_titled(caption, head, rows))
    parts.append(_speeds(contestants, content))
    lead = f"Counted are convolutions and matrix products; not counted: {content.not_counted}."
    return Section("cost", "Cost", Markup("").join(parts), lead=lead)


def _speeds(contestants: Sequence[ContestantRecord], content: Comparison) -> Markup:
    rows = []
    for one in contestants:
        training, prediction = one.training, one.prediction
        memory = training.peak_memory_bytes
        rows.append(
            [
                name_of(one.name),
                significant(training.seconds_per_step),
                significant(training.images_per_second),
                UNDEFINED if memory is None else f"{memory / MEBI:,.0f}",
                ", ".join(training.devices) or UNDEFINED,
                significant(prediction.images_per_second) if prediction else UNDEFINED,
                f"{prediction.times_as_long:.2f}" if prediction else UNDEFINED,
            ]
        )
    head = [
        "backbone",
        "s a step",
        "images/s, training",
        "peak memory (MiB)",
        "trained on",
        "images/s, prediction",
        "times as long",
    ]
    prediction = content.prediction
    measured = (
        f"Prediction: batches of {prediction.batch}, {prediction.rounds} rounds in turns on"
        f" {prediction.device} ({prediction.threads} threads), median."
        if prediction
        else "Prediction was not timed."
    )
    text = (
        "Training: medians of metrics.jsonl, each run in its own time, so what else the machine did is in them; memory"
        f" of the training process (on a GPU: of its tensors), data workers aside. {measured}"
    )
    return _titled("Time and memory", head, rows) + Markup('<p class="lead">{}</p>').format(text)


def _learning(first: ContestantRecord, others: Sequence[ContestantRecord]) -> Section:
    contestants = [first, *others]
    plots = [
        line_plot(lines, title=title, x_label="step", y_label=name, log_y=name == "loss")
        for name, title in (("loss", "Training loss"), (AP, "Box AP of the val set"))
        if (lines := _curves(contestants, name))
    ]
    lead = "The first seed of each backbone is drawn strong, its others pale. AP over steps needs eval.every."
    content = columns(*plots) if plots else note("No curves.")
    if rows := [[name_of(one.name), reached_in_words(one)] for one in others if one.reaches_first]:
        head = ["backbone", "steps, for each seed"]
        content += _titled(f"Steps until the final AP of {first.name} with the same seed", head, rows)
    return Section("learning", "Learning curves", content, lead=lead)


def _curves(contestants: Sequence[ContestantRecord], name: str) -> list[Line]:
    return [
        Line(
            one.name,
            curve.steps,
            curve.values,
            color=1 + i % MOST_COLORS,
            faint=j > 0,
            points=name == AP,
            dashed=i >= MOST_COLORS,
        )
        for i, one in enumerate(contestants)
        for j, run in enumerate(one.runs)
        if (curve := run.curves.get(name))
    ]


def _classes(first: ContestantRecord, others: Sequence[ContestantRecord]) -> Section:
    head = ["class", first.name]
    for other in others:
        head += [other.name, "difference"]
    rows = []
    for name, own in first.classes.items():
        row: list[object] = [name_of(name), own.mean]
        for other in others:
            row += [other.classes[name].mean, signed(other.classes[name].difference)]
        rows.append(row)
    lead = (
        "Box AP of each class, mean over seeds. Single classes are not tested: with many of them some differ by chance."
    )
    return Section("classes", "Classes", table(head, rows), lead=lead)


def _method(contestants: Sequence[ContestantRecord], content: Comparison) -> Section:
    parts = [code(content.command)]
    names = [one.name for one in contestants]
    if differing := content.config_differences:
        rows = [[key(path), *(str(row[name]) for name in names)] for path, row in differing.items()]
        parts.append(_titled("Config keys that differ, the backbone's name apart", ["key", *names], rows))
    else:
        parts.append(note("All contestants have the same config, the backbone's name apart."))
    if content.missing:
        parts.append(table(["run", "why it is missing"], [list(row) for row in content.missing.items()]))
    runs = [[run.name, run.seed, run.figures.get(AP), run.folder] for one in contestants for run in one.runs]
    parts.append(details("Runs", table(["run", "seed", AP, "folder"], runs)))
    return Section("method", "How it was made", Markup("").join(parts))
