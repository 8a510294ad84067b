"""What an exported graph takes and gives, as a JSON file beside it: contract.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from resdet.errors import UserError
from resdet.files import read_regular, readable_json

CONTRACT = "contract.json"
CLASS_NAMES = "class_names.json"
VERSION = "resdet export 1"
LARGEST = 10_000_000  # bytes of a contract


@dataclass(frozen=True)
class Port:
    """An input or output of the graph; a side of its shape that is text may have any length."""

    name: str
    type: str
    shape: tuple[int | str, ...]
    meaning: str


@dataclass(frozen=True)
class Contract:
    """The contract of an exported detector.

    `short_side`, `max_side` and `divisor` are the preparation of images: resized until the short side has so many
    pixels, unless the long one would exceed its limit, and padded with zeros to multiples of the divisor. With
    `preprocessing` "inside" the graph does it.
    """

    format: str
    file: str
    runtime: str
    precision: str
    preprocessing: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    short_side: int
    max_side: int
    divisor: int
    source: str
    step: int
    resdet_version: str

    @property
    def masks(self) -> bool:
        return any(port.name == "masks" for port in self.outputs)

    def to_json(self) -> bytes:
        return readable_json(asdict(self))


def read_contract(folder: Path) -> Contract:
    """The contract in a folder. Raises UserError for a folder that `resdet export` did not write."""
    path = folder / CONTRACT
    try:
        contract = msgspec.json.decode(read_regular(path, largest=LARGEST), type=Contract)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a folder that resdet export wrote") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: is not a contract that resdet wrote ({error})") from None
    if contract.format != VERSION:
        raise UserError(f"{path}: has the format {contract.format!r}, and this version reads {VERSION!r}")
    if Path(contract.file).name != contract.file:
        raise UserError(f"{path}: names the file {contract.file!r}, which must lie beside it")
    return contract


def ports(preprocessing: str, detections: int, mask_side: int | None) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The inputs and outputs of a graph."""
    if preprocessing == "inside":
        given = (
            Port(
                "images", "uint8", ("images", "height", "width", 3), "RGB, 0 .. 255; all of one size, which may be any"
            ),
        )
        where = "pixels of the image"
    else:
        given = (
            Port(
                "images", "uint8", ("images", 3, "rows", "columns"),
                "RGB, 0 .. 255; resized, then padded with zeros on the right and at the bottom to multiples of divisor",
            ),
            Port("sizes", "int64", ("images", 2), "height and width of each image without its padding"),
        )  # fmt: skip
        where = "pixels of the resized image"
    found = (
        Port("boxes", "float32", ("images", detections, 4), f"x1, y1, x2, y2 in {where}, best first"),
        Port("scores", "float32", ("images", detections), "0 .. 1; 0 where there is no detection"),
        Port("labels", "int64", ("images", detections), "index in class_names"),
        Port("valid", "bool", ("images", detections), "whether there is a detection"),
    )
    if mask_side is None:
        return given, found
    meaning = "probability of each cell of the box, row by row; stretched over the box, at least 0.5 is the object"
    return given, (*found, Port("masks", "float32", ("images", detections, mask_side, mask_side), meaning))
