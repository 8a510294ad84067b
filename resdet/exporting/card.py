"""The model card of a detector, exported or as a file: what it is, how good it is, and its limits, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from resdet.config import Config
from resdet.data.sets.splits import name_of
from resdet.engine.saved_models import SavedModel
from resdet.evaluation.analysis.bootstrap import Bootstrap, Difference, Interval
from resdet.exporting.checks import EXPORTED, MODEL, TOLERANCE, Parity, ValFigures
from resdet.exporting.contract import CLASS_NAMES, CONTRACT, Contract
from resdet.text import printable
from resdet.version import __version__

CARD = "README.md"
SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl")
KINDS = {"bbox": "boxes", "segm": "masks"}
LISTED = 100  # names of classes; the others are in the file of names


# The head that the Hugging Face Hub reads. Its values are ours: nothing from outside is YAML.
FRONT = "---\nlibrary_name: resdet\npipeline_tag: {task}\ntags:\n- {kind}\n---\n"
TASKS = {False: "object-detection", True: "image-segmentation"}  # by whether there are masks


def card(contract: Contract, config: Config, measured: Parity, price: ValFigures | None) -> str:
    """The card of an export. Names from outside stand in blocks of code, so they are never markup."""
    sections = (
        f"# A detector of {len(contract.class_names)} classes, exported by resdet {contract.resdet_version}",
        _what(contract),
        _data(contract.class_names, contract.source, contract.step, config),
        _figures(price),
        _parity(measured),
        _limits(config, resized_inside=contract.preprocessing == "inside"),
    )
    kind = contract.file.rpartition(".")[2].replace("xml", "openvino")
    return FRONT.format(task=TASKS[contract.masks], kind=kind) + "\n\n".join(sections) + "\n"


def model_card(
    model: SavedModel, repository: str, price: ValFigures | None, recorded: Mapping[str, float | None]
) -> str:
    """The card of a detector's file in a repository of the Hugging Face Hub.

    `recorded` are figures of the training at this step, which are stated where none were measured.
    """
    saved, config = model.saved, model.saved.config
    sections = (
        f"# A detector of {len(saved.class_names)} classes, trained by resdet {__version__}",
        f"    pip install resdet\n    resdet predict hf://{repository} photo.jpg",
        _data(saved.class_names, str(model.file), saved.step, config),
        _figures(price, recorded),
        _limits(config, resized_inside=False),
    )
    masks = config.model.mask_head is not None
    return FRONT.format(task=TASKS[masks], kind="safetensors") + "\n\n".join(sections) + "\n"


def _what(contract: Contract) -> str:
    sizes = f"short side {contract.short_side}, long side at most {contract.max_side}"
    inside = contract.preprocessing == "inside"
    who = "the graph resizes images of any size" if inside else "images are resized before the graph, as in example.py"
    return (
        f"`{contract.file}` runs with {contract.runtime}; precision {contract.precision}. Preparation: {who} "
        f"({sizes}, padded to multiples of {contract.divisor}). `{CONTRACT}` describes inputs and outputs, "
        f"`{CLASS_NAMES}` has the names of the labels, and `python example.py photo.npy` runs the graph."
    )


def _data(class_names: Sequence[str], source: str, step: int, config: Config) -> str:
    names = json.dumps([printable(name) for name in class_names[:LISTED]], ensure_ascii=False)
    more = len(class_names) - LISTED
    facts = {
        "model": source,
        "step": step,
        "backbone": config.model.backbone.name,
        "trained on": name_of(config.data, "train"),
        "measured on": name_of(config.data, "val"),
    }
    lines = [f"{key}: {printable(str(value))}" for key, value in facts.items()]
    lines += [f"classes: {names}" + (f" and {more} more" if more > 0 else "")]
    return "## Model and data\n\n" + "\n".join(f"    {line}" for line in lines)


def _figures(price: ValFigures | None, recorded: Mapping[str, float | None] = MappingProxyType({})) -> str:
    if price is not None:
        tables = [_table(kind, compared, price.images) for kind, compared in price.kinds.items()]
        return "## Figures\n\n" + "\n\n".join(tables)
    rows = [
        f"| {KINDS[kind]} | {figure} | {100 * value:.1f} |"
        for kind in KINDS
        for figure in SHOWN
        if (value := recorded.get(f"{kind}/{figure}")) is not None
    ]
    if rows:
        return (
            "## Figures\n\nCOCO's figures on the val set, in percent, as the training measured them; `--measure` adds"
            " 95 % intervals.\n\n| | | |\n|---|---|---|\n" + "\n".join(rows)
        )
    return "## Figures\n\nNot measured: the val set was not there, or `--measure` was not given."


def _table(kind: str, compared: Bootstrap, images: int) -> str:
    titles = {MODEL: "model (float32)", EXPORTED: "this graph"}
    names = [name for name in titles if name in compared.detectors]
    header = ["", *(titles[name] for name in names), *(["graph minus model"] if EXPORTED in names else [])]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for figure in SHOWN:
        if compared.detectors[MODEL][figure].value is None:
            continue
        cells = [figure, *(_interval(compared.detectors[name][figure]) for name in names)]
        cells += [_difference(change[figure]) for change in compared.differences.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return (
        f"COCO's figures of {KINDS[kind]} on the {images} images of the val set, in percent, with 95 % intervals over "
        "images:\n\n" + "\n".join(lines)
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


def _limits(config: Config, *, resized_inside: bool) -> str:
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
    if resized_inside:
        lines.append("The graph's resizing may differ from resdet's own by 1 of 255 in some pixels.")
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)
