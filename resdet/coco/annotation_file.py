"""The JSON of a COCO annotation file as typed records; a record that does not fit is named by its ids."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from resdet.errors import UserError
from resdet.text import shortened

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class ImageRecord(msgspec.Struct, gc=False):
    id: Id
    file_name: str
    height: int
    width: int


class AnnotationRecord(msgspec.Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]  # x, y, width, height
    area: float | None = None
    iscrowd: int | bool = 0
    difficult: int | bool | None = None  # Pascal VOC's
    segmentation: msgspec.Raw = msgspec.Raw(b"[]")  # a view of the file, parsed later in chunks


class CategoryRecord(msgspec.Struct, gc=False):
    id: Id
    name: str


class _Sections(msgspec.Struct):
    images: list[ImageRecord]
    annotations: list[AnnotationRecord]
    categories: list[CategoryRecord]


class AnnotationFile(msgspec.Struct):
    path: Path
    images: list[ImageRecord]
    annotations: list[AnnotationRecord]
    categories: list[CategoryRecord]


def read_annotation_file(path: Path) -> AnnotationFile:
    """Raises UserError for a file that cannot be read, is no JSON or has a record of the wrong form."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a COCO annotation file (datasets/README.md)") from None
    try:
        sections = msgspec.json.decode(data, type=_Sections)
    except msgspec.ValidationError as error:
        raise _misfit(path, data, str(error)) from None
    except msgspec.DecodeError as error:
        raise UserError(_not_json(path, data, str(error))) from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply to be a COCO annotation file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    return AnnotationFile(path, sections.images, sections.annotations, sections.categories)


_RECORDS = {"images": ImageRecord, "annotations": AnnotationRecord, "categories": CategoryRecord}
_NOUNS = {"images": "image", "annotations": "annotation", "categories": "category"}


class _RawSections(msgspec.Struct):
    images: list[msgspec.Raw] | None = None
    annotations: list[msgspec.Raw] | None = None
    categories: list[msgspec.Raw] | None = None


def _misfit(path: Path, data: bytes, reason: str) -> UserError:
    """Decoding again, record by record, finds the one that does not fit and its ids."""
    try:
        sections = msgspec.json.decode(data, type=_RawSections)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return UserError(f"{path}: {reason}; a COCO file is an object with lists images, annotations, categories")
    for section, kind in _RECORDS.items():
        raws = getattr(sections, section)
        if raws is None:
            return UserError(f"{path}: the list {section!r} is missing; is this a COCO annotation file?")
        decoder = msgspec.json.Decoder(kind)
        for index, raw in enumerate(raws):
            try:
                decoder.decode(raw)
            except msgspec.ValidationError as error:
                return UserError(f"{path}: {_record(section, index, raw)}: {_field(str(error), raw)}")
            except (RecursionError, UnicodeDecodeError) as error:
                return UserError(f"{path}: {section}[{index}]: not readable ({error})")
    return UserError(f"{path}: {reason}")


def _record(section: str, index: int, raw: msgspec.Raw) -> str:
    fields = _loose(raw)
    ids = [f"{key} {_shown(fields[key])}" for key in ("id", "image_id") if key in fields]
    return f"{_NOUNS[section]} {index} of the list" + (f" ({', '.join(ids)})" if ids else "")


def _field(reason: str, raw: msgspec.Raw) -> str:
    """msgspec's `Expected int, got str - at $.bbox[0]`, with the field's name in front and its value behind."""
    problem, _, place = reason.partition(" - at `$.")
    name = place.rstrip("`").partition("[")[0]
    fields = _loose(raw)
    if not name:
        return problem
    return f"field {name!r} is {_shown(fields.get(name))}: {problem}"


def _loose(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return {key: bytes(value).decode(errors="replace") for key, value in fields.items()}


def _shown(text: str | None) -> str:
    """JSON text for a terminal: short, and with control characters escaped."""
    if text is None:
        return "missing"
    return shortened(text, 60)


def _not_json(path: Path, data: bytes, reason: str) -> str:
    if not data.strip():
        return f"{path}: the file is empty; give a COCO annotation file"
    if data.startswith(b"\xef\xbb\xbf"):
        return f"{path}: begins with a byte order mark; save it as UTF-8 without one"
    _, marker, position = reason.rpartition("(byte ")
    if not marker:
        return f"{path}: not valid JSON: {reason}; is the download complete?"
    byte = int(position.rstrip(")"))
    line = data.count(b"\n", 0, byte) + 1
    around = _shown(data[max(0, byte - 40) : byte + 20].decode(errors="replace"))
    for literal in (b"NaN", b"Infinity"):
        if data[byte : byte + len(literal) + 1].lstrip(b"-").startswith(literal):
            return (
                f"{path}: {literal.decode()} at byte {byte} (line {line}), near {around!r}: "
                "not a number; remove that annotation or mend its value"
            )
    return f"{path}: not valid JSON at byte {byte} (line {line}), near {around!r}: {reason}"
