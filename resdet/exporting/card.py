"""The model card of an exported detector: what it is, how good it is, and its limits, in Markdown."""

from __future__ import annotations

import json

from resdet.config import Config
from resdet.data.sets.splits import name_of
from resdet.evaluation.analysis.bootstrap import Bootstrap, Difference, Interval
from resdet.exporting.checks import TOLERANCE, Cost, Parity
from resdet.exporting.contract import CLASS_NAMES, CONTRACT, Contract
from resdet.text import printable

CARD = "README.md"
SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl")
KINDS = {"bbox": "boxes", "segm": "masks"}
LISTED = 100  # names of classes; the others are in the file of names


def card(contract: Contract, config: Config, measured: Parity, price: Cost | None) -> str:
    """The text. Names from outside stand in blocks of code, so they are never markup."""
    sections = (
        f"# A detector of {len(contract.class_names)} classes, exported by resdet {contract.resdet_version}",
        _what(contract),
        _data(contract, config),
        _figures(price),
        _parity(measured),
        _limits(contract, config),
    )
    return "\n\n".join(sections) + "\n"


def _what(contract: Contract) -> str:
    sizes = f"short side {contract.short_side}, long side at most {contract.max_side}"
    inside = contract.preprocessing == "inside"
    who = "the graph resizes images of any size" if inside else "images are resized before the graph, as in example.py"
    return (
        f"`{contract.file}` runs with {contract.runtime}; precision {contract.precision}. Preparation: {who} "
        f"({sizes}, padded to multiples of {contract.divisor}). `{CONTRACT}` describes inputs and outputs, "
        f"`{CLASS_NAMES}` has the names of the labels, and `python example.py photo.npy` runs the graph."
    )


def _data(contract: Contract, config: Config) -> str:
    names = json.dumps([printable(name) for name in contract.class_names[:LISTED]], ensure_ascii=False)
    more = len(contract.class_names) - LISTED
    facts = {
        "model": contract.source,
        "step": contract.step,
        "backbone": config.model.backbone.name,
        "trained on": name_of(config.data, "train"),
        "measured on": name_of(config.data, "val"),
    }
    lines = [f"{key}: {printable(str(value))}" for key, value in facts.items()]
    lines += [f"classes: {names}" + (f" and {more} more" if more > 0 else "")]
    return "## Model and data\n\n" + "\n".join(f"    {line}" for line in lines)


def _figures(price: Cost | None) -> str:
    if price is None:
        return (
            "## Figures\n\nNot measured: the val set was not there, or the export ran without `--measure`, which"
            " compares the AP of model and graph."
        )
    tables = [_table(kind, compared, price.images) for kind, compared in price.kinds.items()]
    return "## Figures\n\n" + "\n\n".join(tables)


def _table(kind: str, compared: Bootstrap, images: int) -> str:
    model, graph, change = compared.detectors["model"], compared.detectors["exported"], compared.differences["exported"]
    rows = [
        f"| {figure} | {_interval(model[figure])} | {_interval(graph[figure])} | {_difference(change[figure])} |"
        for figure in SHOWN
        if model[figure].value is not None
    ]
    return (
        f"COCO's figures of {KINDS[kind]} on the {images} images of the val set, in percent, with 95 % intervals over "
        f"images:\n\n| | model (float32) | this graph | graph minus model |\n|---|---|---|---|\n" + "\n".join(rows)
    )


def _interval(value: Interval) -> str:
    if value.value is None or value.low is None or value.high is None:
        return "undefined"
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def _difference(value: Difference) -> str:
    if value.difference is None or value.low is None or value.high is None:
        return "undefined"
    return f"{100 * value.difference:+.2f} ({100 * value.low:+.2f} to {100 * value.high:+.2f})"


def _parity(measured: Parity) -> str:
    masks = "" if measured.masks is None else f", of a mask's cell {measured.masks:.1e}"
    verdict = "within" if measured.holds else "beyond"
    return (
        f"## Agreement with the model\n\nOn {measured.images} images with {measured.detections} detections, "
        f"{measured.unequal} images have another number of detections or another label. The largest difference of a "
        f"score is {measured.scores:.1e}, of a box {measured.boxes:.1e} pixels{masks}: {verdict} {TOLERANCE:g} of a"
        " score and of the image's longer side."
    )


def _limits(contract: Contract, config: Config) -> str:
    lines = [
        "It knows only the classes above, and images like those that it was trained on; measure it on your own.",
        "Scores order detections; they are not calibrated probabilities.",
    ]
    if config.model.box_head is not None:
        lines.append(
            f"At most {config.model.box_head.detections} detections an image, with a score above "
            f"{config.model.box_head.score_threshold:g}; boxes of a class overlap at most "
            f"{config.model.box_head.nms_iou:g}."
        )
    if contract.preprocessing == "inside":
        lines.append("The graph's resizing may differ from resdet's own by 1 of 255 in some pixels.")
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)
