"""The errors of a detector: types of errors with their costs, confusion, curves and calibration."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from markupsafe import Markup

from resdet.analysis.pages.matrix import matrix_plot
from resdet.analysis.pages.page import Section, columns, name_of, number, table
from resdet.analysis.pages.plots import Line, bar_plot, line_plot
from resdet.analysis.report.scored import Scored
from resdet.evaluation.analysis.analyse import Analysis

MEANINGS = {
    "classification": "right place, wrong class",
    "localization": "right class, box too far off",
    "both": "wrong class and box off",
    "duplicate": "an object found twice",
    "background": "a box where nothing is",
    "missed": "nothing found the object",
}
MOST_CONFUSED = 16  # classes in the matrix
NARROW = 11  # names of a matrix that has a table beside it
MOST_PAIRS = 12
MOST_CURVES = 8  # of classes
MOST_CLASSES = 12  # in the table of scores


def summary(scored: Scored) -> Markup:
    """A summary of the detector in two sentences."""
    analysis = scored.boxes
    found, missed, false = (int(counts.sum()) for counts in
                            (analysis.images.found, analysis.images.missed, analysis.images.false))  # fmt: skip
    objects, boxes = found + missed, found + false
    text = Markup(
        "With boxes of a score of at least {:g} it finds <strong>{} of {} objects</strong>{}, and "
        "<strong>{} of its {} boxes</strong> are right{}."
    ).format(analysis.score_threshold, found, objects, _share(found, objects), found, boxes, _share(found, boxes))
    worst = sorted(((cost, kind) for kind in MEANINGS if (cost := analysis.errors.cost[kind])), reverse=True)[:2]
    if worst:
        told = [Markup("{} ({}, {} AP50)").format(kind, MEANINGS[kind], number(cost)) for cost, kind in worst]
        text += Markup(" What costs it most: <strong>{}</strong>{}.").format(
            told[0], Markup(", then {}").format(told[1]) if len(told) > 1 else ""
        )
    return Markup('<p class="summary">{}</p>').format(text)


def _share(part: int, whole: int) -> str:
    return f" ({part / whole:.0%})" if whole else ""


def mistakes_section(scored: Scored) -> Section:
    """The section with costs, confusion, precision over recall, and calibration."""
    body = columns(_costs(scored.boxes), _costs(scored.masks) if scored.masks else Markup(""))
    body += confusion_part(scored.boxes)
    body += columns(_mean_curves(scored.boxes), _class_curves(scored.boxes))
    body += columns(_calibration(scored.boxes), _best_scores(scored.boxes))
    lead = (
        "The AP50 that would be gained if one kind of error alone were corrected; each counts detections of any score."
    )
    return Section("mistakes", "What it gets wrong", body, lead)


def _costs(analysis: Analysis) -> Markup:
    errors = analysis.errors
    kinds = sorted(MEANINGS, key=lambda kind: -(errors.cost[kind] or 0.0))
    of = {"bbox": "boxes", "segm": "masks"}[analysis.iou_type]
    return bar_plot(
        [(kind, errors.cost[kind]) for kind in kinds],
        title=f"AP50 that errors of {of} cost",
        color=1 if analysis.iou_type == "bbox" else 2,
        details=[f"{MEANINGS[kind]}: {errors.counts[kind]} times" for kind in kinds],
    )


def confusion_part(analysis: Analysis) -> Markup:
    """The matrix of the classes that are confused most often, and a table of pairs if there are many classes."""
    counts = analysis.confusion.counts
    names = [*analysis.class_names, "nothing"]
    chosen = most_confused(counts)
    part = counts[np.ix_(chosen, chosen)]
    many = len(chosen) < len(counts)
    title = f"Confusion at a score of {analysis.confusion.score_threshold:g} and IoU {analysis.confusion.iou:g}"
    matrix = matrix_plot(
        part.tolist(),
        [names[i] for i in chosen],
        [names[i] for i in chosen],
        title=f"{title}: the {len(chosen) - 1} classes with most errors" if many else title,
        row_label="object",
        column_label="found as",
    )
    pairs = _pairs(counts, names)
    return columns(matrix, pairs) if len(chosen) <= NARROW else matrix + pairs


def most_confused(counts: Int64[np.ndarray, "K1 K1"]) -> list[int]:
    """Up to MOST_CONFUSED classes that take part in the most confusions, in their order, and the background."""
    between = counts[:-1, :-1] - np.diag(np.diag(counts)[:-1])
    errors = between.sum(axis=0) + between.sum(axis=1) + 1e-6 * (counts[:-1].sum(axis=1))
    order = np.argsort(-errors, kind="stable")[:MOST_CONFUSED]
    return [*np.sort(order).tolist(), len(counts) - 1]


def _pairs(counts: Int64[np.ndarray, "K1 K1"], names: list[str]) -> Markup:
    """The pairs of classes that are confused, with counts."""
    between = counts[:-1, :-1] - np.diag(np.diag(counts)[:-1])
    flat = np.argsort(-between, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(flat, between.shape), strict=True)]
    rows: list[list[object]] = [
        [name_of(names[i]), name_of(names[j]), int(between[i, j])] for i, j in pairs if between[i, j] > 0
    ]
    return table(["object", "found as", "how often"], rows, caption="Most frequent confusions") if rows else Markup("")


def _mean_curves(analysis: Analysis) -> Markup:
    curves = analysis.curves
    lines = [
        Line(f"IoU {iou}", curves.recalls.tolist(), _defined(precision), color)
        for color, (iou, precision) in enumerate(zip(curves.ious, curves.mean, strict=True), start=1)
    ]
    return _curves(lines, "Precision over recall, mean over classes")


def _class_curves(analysis: Analysis) -> Markup:
    """The curve of each class at IoU 0.5; if there are many classes, those with the lowest AP."""
    precision = analysis.curves.precision[0]
    known = np.flatnonzero(~np.isnan(precision[:, 0]))
    means = precision[known].mean(axis=1)
    chosen = np.sort(known[np.argsort(means, kind="stable")[:MOST_CURVES]]).tolist()
    lines = [Line(analysis.class_names[k], analysis.curves.recalls.tolist(), _defined(precision[k])) for k in chosen]
    which = f", the {len(chosen)} weakest classes" if len(chosen) < len(known) else ", by class"
    return _curves(lines, f"Precision over recall at IoU 0.50{which}") if lines else Markup("")


def _curves(lines: list[Line], title: str) -> Markup:
    return line_plot(lines, title=title, x_label="recall", y_label="precision", x_range=(0, 1), y_range=(0, 1))


def _calibration(analysis: Analysis) -> Markup:
    """The fraction of correct detections for each score: on the diagonal a score is a probability."""
    calibration = analysis.calibration
    error = "" if calibration.ece is None else f" (expected calibration error {calibration.ece:.3f})"
    confidence = calibration.confidence
    filled = ~np.isnan(confidence)
    lines = [
        Line("as it should be", [0, 1], [0, 1], color=0, dashed=True),
        Line("precision", confidence[filled].tolist(), _defined(calibration.precision[filled]), color=1, points=True),
    ]
    return line_plot(
        lines,
        title=f"Is a score a probability?{error}",
        x_label="score",
        y_label="share that is right",
        x_range=(0, 1),
        y_range=(0, 1),
    )


def _best_scores(analysis: Analysis) -> Markup:
    """The threshold with the best F1 for each class."""
    scores, f1 = _defined(analysis.curves.best_score), _defined(analysis.curves.best_f1)
    objects = analysis.confusion.counts[:-1].sum(axis=1)
    order = np.argsort(-objects, kind="stable")[:MOST_CLASSES].tolist()
    rows = [[name_of(analysis.class_names[k]), scores[k], f1[k], int(objects[k])] for k in order]
    caption = "The score from which on each class is best taken at its word (largest F1 at IoU 0.50)"
    more = f"; the {len(order)} most frequent classes" if len(order) < len(objects) else ""
    return table(["class", "score", "F1", "objects"], rows, caption=caption + more)


def _defined(values: Float64[np.ndarray, " n"]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
