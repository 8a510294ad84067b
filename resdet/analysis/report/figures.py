"""The figures of the last evaluation: as large numbers at the top, and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from resdet.analysis.pages.page import Headline, Section, columns, details, meter, name_of, note, number, table
from resdet.analysis.pages.plots import bar_plot
from resdet.analysis.report.scored import Scored
from resdet.engine.run_folder import Figures, RunFolder
from resdet.evaluation.metrics import by_class, meaning

HEADLINES = {
    "bbox/AP": ("box AP", "mean over IoU .50 to .95"),
    "bbox/AP50": ("box AP50", "at IoU .50"),
    "bbox/AP75": ("box AP75", "at IoU .75"),
    "segm/AP": ("mask AP", "mean over IoU .50 to .95"),
    "segm/AP50": ("mask AP50", "at IoU .50"),
    "segm/AP75": ("mask AP75", "at IoU .75"),
    "voc/AP50": ("VOC AP50", "Pascal VOC, at IoU .50"),
    "recall/AR100": ("proposal AR100", "recall of 100 boxes an image"),
    "recall/AR300": ("proposal AR300", "recall of 300 boxes an image"),
    "recall/AR1000": ("proposal AR1000", "recall of 1000 boxes an image"),
    "top1/accuracy": ("top-1 accuracy", "images whose best class is right"),
    "top1/error": ("top-1 error", "images whose best class is wrong"),
    "train/error": ("training error", "the same on training images"),
}
KINDS = {
    "bbox": "boxes",
    "segm": "masks",
    "recall": "proposals",
    "voc": "VOC",
    "top1": "val set",
    "train": "training set",
}
SIZES = ("small", "medium", "large")
SIZE_REMARKS = {
    "small": "up to 32x32 pixels",
    "medium": "between",
    "large": "from 96x96 pixels",
}
FEW_CLASSES = 12  # which fit beside the figures over all classes
MOST_CLASSES = 30  # up to this number all classes are shown; otherwise the best and the worst
MOST_LISTED = 2000  # in the collapsed table
SHOWN_OF_MANY = 10  # at each end


def headlines(figures: Figures) -> list[Headline]:
    """The main figures of a detector."""
    return [
        Headline(title, number(figures[name]), detail) for name, (title, detail) in HEADLINES.items() if name in figures
    ]


def figures_section(run: RunFolder, scored: Scored | None) -> Section:
    """All figures: over classes, by size and by class."""
    if not run.figures:
        body = note("The run has no figures yet: they come with its first evaluation, at the end of training or "
                    "every eval.every steps.")  # fmt: skip
        return Section("figures", "Figures", body)
    overall = {name: value for name, value in run.figures.items() if name.count("/") == 1}
    rows = by_class(run.figures)
    beside, below = _sizes(overall, scored), Markup("")
    if len(rows) <= FEW_CLASSES and "segm/AP" not in overall:
        beside += _class_part(rows, scored)
    else:
        below = _class_part(rows, scored)
    parts = columns(_overall_table(overall), beside) + below
    lead = "Average precision (AP) counts both what is found and how many false alarms it takes; 1 is perfect."
    return Section("figures", "Figures", parts, lead if "bbox/AP" in overall else "")


def _overall_table(figures: Figures) -> Markup:
    """One row per figure and one column per kind, boxes beside masks."""
    kinds = list(dict.fromkeys(name.split("/")[0] for name in figures))
    rows: list[list[object]] = []
    for figure in dict.fromkeys(name.split("/")[1] for name in figures):
        names = [f"{kind}/{figure}" for kind in kinds]
        words = next((words for name in names if name in figures and (words := meaning(name))), "")
        rows.append(
            [figure, *(figures.get(name) for name in names), Markup('<span class="remark">{}</span>').format(words)]
        )
    return table(["figure", *(KINDS.get(kind, kind) for kind in kinds), ""], rows)


def _sizes(figures: Figures, scored: Scored | None) -> Markup:
    """AP of small, medium and large objects, with their numbers if known."""
    objects = dict(zip(scored.boxes.sizes.names, scored.boxes.sizes.objects.tolist(), strict=True)) if scored else {}
    plots: list[Markup] = []
    for color, kind in ((1, "bbox"), (2, "segm")):
        if f"{kind}/APs" not in figures:
            continue
        bars = [(size, figures.get(f"{kind}/AP{size[0]}")) for size in SIZES]
        remarks = [f"{objects[size]} objects" if size in objects else SIZE_REMARKS[size] for size in SIZES]
        title = f"AP of {KINDS[kind]} by size of the object"
        plots.append(bar_plot(bars, title=title, largest=1, color=color, details=remarks))
    return Markup("").join(plots)


def _class_part(rows: Mapping[str, Mapping[str, float | None]], scored: Scored | None) -> Markup:
    if not rows:
        return Markup("")
    figures = list(dict.fromkeys(figure for row in rows.values() for figure in row))
    first = figures[0]
    defined = [name for name in rows if rows[name].get(first) is not None]
    ordered = sorted(defined, key=lambda name: -(rows[name][first] or 0.0))
    ordered += [name for name in rows if rows[name].get(first) is None]  # classes without an object
    if len(rows) <= MOST_CLASSES:
        return _class_table("By class, best first", ordered, rows, figures, scored)
    best, worst = ordered[:SHOWN_OF_MANY], ordered[: len(defined)][-SHOWN_OF_MANY:]
    ends = [
        _class_table(f"The {SHOWN_OF_MANY} best classes", best, rows, figures, scored),
        _class_table(f"The {SHOWN_OF_MANY} worst classes", worst, rows, figures, scored),
    ]
    everything = _class_table("", ordered[:MOST_LISTED], rows, figures, scored)
    return Markup("").join(ends) + details(f"All {len(rows)} classes", everything)


def _class_table(
    caption: str,
    names: Sequence[str],
    rows: Mapping[str, Mapping[str, float | None]],
    figures: Sequence[str],
    scored: Scored | None,
) -> Markup:
    objects = objects_by_class(scored)
    kinds = {figure.split("/")[0] for figure in figures}
    headings = [
        f"{KINDS.get(f.split('/')[0], '')} {f.split('/')[1]}" if len(kinds) > 1 else f.split("/")[1] for f in figures
    ]
    cells = [
        [name_of(name), meter(rows[name].get(figures[0])), *(rows[name].get(figure) for figure in figures)]
        + ([objects.get(name)] if objects else [])
        for name in names
    ]
    return table(["class", "", *headings, *(["objects"] if objects else [])], cells, caption=caption, wide=[1])


def objects_by_class(scored: Scored | None) -> dict[str, int]:
    """The number of objects of each class in the ground truth; empty if it is not known."""
    if scored is None:
        return {}
    counts = scored.boxes.confusion.counts[:-1].sum(axis=1).tolist()
    return dict(zip(scored.boxes.class_names, counts, strict=True))
