"""Converts one published file of a given toolkit to resdet's names and to RGB images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from resdet.errors import UserError
from resdet.weights.contract import to_rgb
from resdet.weights.convert import FORMATS, Converted, from_detectron2, keep_classes
from resdet.weights.convert.names import class_rows
from resdet.weights.convert.timm import from_timm
from resdet.weights.convert.torchvision import UNUSED
from resdet.weights.detectron2_zoo import SETS
from resdet.weights.family import network
from resdet.weights.read import WeightsFile, read_weights
from resdet.weights.sources import Source, coco_names, named_weights, resolve

ChannelOrder = Literal["RGB", "BGR"]
COCO_CLASSES = (80, 90)  # without and with the category ids that no object has


def convert_file(
    spec: str,
    kind: str,
    *,
    architecture: str | None = None,
    channel_order: ChannelOrder | None = None,
    class_names: str | None = None,
) -> Converted:
    """Reads and converts a file or published weights; the notes list all changes.

    Args:
        spec: a path; for torchvision also a name (FasterRCNN_ResNet50_FPN_Weights.COCO_V1); for timm also timm/<model>.
        kind: detectron2, torchvision, msra or timm.
        architecture: the backbone's name in a config, if the tensors do not determine it (timm: required).
        channel_order: of a Detectron2 file; None: BGR, as for most of its zoo.
        class_names: of a detector: a text file of one name a line without a background, or `coco`, `voc` or
            `cityscapes`; None: what the publisher states, COCO's for 80 or 90 classes, else class_1, class_2, ...
    """
    if channel_order is not None and kind != "detectron2":
        raise UserError(f"--channel-order {channel_order}: only detectron2 has files of both orders, not {kind}")
    if kind == "timm" and architecture is None and spec.startswith("timm/"):
        architecture = spec
    source = _source(spec, kind, architecture)
    file = read_weights(source.path)
    converted = _published(_converted(file, kind, architecture, channel_order), source)
    if (rows := class_rows(converted.state)) is not None or class_names is not None:
        converted = _with_class_names(converted, class_names, rows)
    state, contract, flipped = to_rgb(converted.state, converted.contract)
    named = _architecture(contract.architecture or architecture, converted, spec)
    read = f"{len(file.state)} tensors read from {source.path}, {len(state)} under resdet's names"
    return Converted(state, replace(contract, architecture=named), (read, *file.notes, *converted.notes, *flipped))


def _architecture(said: str | None, converted: Converted, spec: str) -> str | None:
    """The backbone's name in a config, which the tensors must not contradict."""
    found = network({name: value.shape for name, value in converted.state.items()})
    seen = None if found is None else found.architecture(stride_in_1x1=converted.contract.stride_in_1x1)
    if said is not None and seen is not None and said != seen and not said.startswith("timm/"):
        raise UserError(f"{spec}: said to be {said}, but its tensors are those of {seen}")
    return said or seen


def _with_class_names(converted: Converted, class_names: str | None, rows: int | None) -> Converted:
    """The names of the classes: the given names, otherwise the publisher's, otherwise COCO's for 80 or 90 classes,
    otherwise numbers.
    """
    if class_names is not None:
        return keep_classes(converted, _names_of_classes(class_names, rows))
    if converted.contract.class_names is not None or rows is None:
        return converted
    if rows in COCO_CLASSES:
        note = f"{rows} classes: taken for COCO's; give --class-names FILE where they are others"
        names = _names_of_classes("coco", rows)
    else:
        note = f"the file names none of its {rows} classes: class_1 to class_{rows}; give --class-names FILE"
        names = [f"class_{label + 1}" for label in range(rows)]
    named = keep_classes(converted, names)
    return replace(named, notes=(*named.notes, note))


def _names_of_classes(file: str, rows: int | None) -> list[str]:
    """The lines of a text file; for a row of SETS its classes, which are COCO's 80 for `coco`, or its 90 category ids
    for a file of so many.
    """
    if file == "coco":
        return [name for name in coco_names() if name != UNUSED or rows == 90]
    if file in SETS:
        return list(SETS[file].class_names)
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--class-names {file}: cannot be read as text ({error})") from error
    names = [line.strip() for line in lines if line.strip()]
    twice = sorted({name for name in names if name != UNUSED and names.count(name) > 1})
    if twice or not names:
        raise UserError(f"--class-names {file}: {f'{twice[0]!a} stands there twice' if twice else 'the file is empty'}")
    return names


def _source(spec: str, kind: str, architecture: str | None) -> Source:
    if Path(spec).is_file():
        return Source(Path(spec), None)
    if kind == "timm" and spec.startswith("timm/"):
        return resolve("timm", spec)
    if kind == "torchvision" and "_Weights." in spec:
        return named_weights(spec)
    raise UserError(f"{spec}: no such file{' nor such weights' if kind in ('torchvision', 'timm') else ''}")


def _converted(file: WeightsFile, kind: str, architecture: str | None, channel_order: ChannelOrder | None) -> Converted:
    name = file.path.name
    if kind == "detectron2":
        return from_detectron2(file.state, name, channel_order=channel_order or "BGR")
    if kind == "timm":
        if architecture is None:
            raise UserError(f"{file.path}: say of which model it is, --architecture timm/MODEL")
        return from_timm(file.state, name, architecture=architecture)
    return FORMATS[kind](file.state, name)


def _published(converted: Converted, source: Source) -> Converted:
    """The contract with the publisher's values in place of the typical values of the format."""
    stated = source.contract
    if stated is None:
        return converted
    contract = replace(
        converted.contract,
        pixel_mean=stated.pixel_mean,
        pixel_std=stated.pixel_std,
        architecture=stated.architecture,
        source=stated.source,
    )
    converted = replace(converted, contract=contract)
    if stated.class_names is None or class_rows(converted.state) is None:
        return converted
    return keep_classes(converted, stated.class_names)
