"""Parses the JSON of a COCO annotation file into typed records; an error names the record that does not fit by
its ids.
"""

from __future__ import annotations

import io
import json
import os
import re
from contextlib import closing
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import msgspec

from resdet.coco.forks import usable_processes
from resdet.coco.json_sections import Section, Unusual, read_sections
from resdet.coco.records import AnnotationRecord, CategoryRecord, Collected, ImageRecord, Records
from resdet.coco.report import Note
from resdet.errors import UserError
from resdet.files import opened_regular
from resdet.text import shortened

LARGE = 2**26  # bytes of a file that several processes read
EXPECTED = "a COCO file is an object with lists images, annotations, categories"


class _Sections(msgspec.Struct):
    images: list[ImageRecord]
    annotations: list[AnnotationRecord]
    categories: list[CategoryRecord]


class AnnotationFile(msgspec.Struct):
    """The records of a data set, before the verdicts (see `resdet.coco.reader`).

    `converted` are the ids of annotations in which a number is text ("7") or has a decimal point (7.0). `mended` and
    `skipped` are what a conversion, or a choice of the config, corrected and left out, by reason; `unreadable` has the
    image files that were left out because they cannot be read, with the reason; `remarks` are lines for the user.
    """

    source: str
    images: list[ImageRecord]
    annotations: Records
    categories: list[CategoryRecord]
    converted: list[int]
    mended: dict[str, Note] = {}
    skipped: dict[str, Note] = {}
    unreadable: dict[str, str] = {}
    remarks: list[str] = []


def read_annotation_file(path: Path) -> AnnotationFile:
    """Raises UserError for a file that cannot be read, that is not JSON, or that has a record of the wrong form."""
    try:
        with opened_regular(path) as file:
            large = os.fstat(file.fileno()).st_size >= LARGE
            return _parsed(file, str(path), processes=usable_processes() if large else 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a COCO annotation file (datasets/README.md)") from None


def parse_annotations(data: bytes, source: str) -> AnnotationFile:
    """The same for the content of a file; messages contain `source` as its name."""
    return _parsed(io.BytesIO(data), source)


def _parsed(file: BufferedIOBase, source: str, *, processes: int = 1) -> AnnotationFile:
    images: list[ImageRecord] = []
    annotations = Collected()
    categories: list[CategoryRecord] = []
    try:
        with closing(read_sections(file, _SECTIONS, processes=processes)) as portions:
            for section, portion in portions:
                if section == "annotations":
                    annotations.add(portion)
                else:
                    (images if section == "images" else categories).extend(portion)
    except Unusual:
        _ = file.seek(0)
        return _parsed_at_once(file.read(), source)
    return _with_names(AnnotationFile(source, images, annotations.records(), categories, []))


def _parsed_at_once(data: bytes, source: str) -> AnnotationFile:
    """The same for a text that is not plain: names what is wrong in it, and repairs what can be repaired."""
    try:
        return _file(source, msgspec.json.decode(data, type=_Sections), [])
    except msgspec.ValidationError:
        pass  # numbers that are text may still be valid: parse again without strict types
    except msgspec.DecodeError as error:
        whole = _HALF_SURROGATE.sub(b"?", data)
        if whole != data:
            return _parsed_at_once(whole, source)
        raise UserError(_not_json(source, data, str(error))) from None
    except RecursionError:
        raise UserError(f"{source}: nested too deeply to be a COCO annotation file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    try:
        sections = msgspec.json.decode(data, type=_Sections, strict=False)
    except msgspec.ValidationError as error:
        raise _misfit(source, data, str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: not readable ({error}); {EXPECTED}") from None
    return _file(source, sections, _converted(data, sections))


def annotation_file_from_dict(data: dict[str, Any], *, source: str) -> AnnotationFile:
    """The same for the content as a dictionary, which is not changed."""
    return parse_annotations(json.dumps(data, default=_text).encode(), source)


def _text(value: Any) -> str:
    """pycocotools stores the string form of run lengths as bytes."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    raise UserError(f"annotations: a value of type {type(value).__name__} is not JSON; give plain numbers and lists")


# Half of a surrogate pair, which cannot be printed or written as text.
_HALF_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def _file(source: str, sections: _Sections, converted: list[int]) -> AnnotationFile:
    records = Records.of(sections.annotations)
    return _with_names(AnnotationFile(source, sections.images, records, sections.categories, converted))


def _with_names(file: AnnotationFile) -> AnnotationFile:
    """With LVIS's addresses of images as their names."""
    for image in file.images:
        if image.file_name is None and image.coco_url is not None:
            image.file_name = "/".join(image.coco_url.split("/")[-2:])  # train2017/000000391895.jpg
        image.coco_url = None
    return file


def _converted(data: bytes, sections: _Sections) -> list[int]:
    decoder = msgspec.json.Decoder(AnnotationRecord)
    ids: list[int] = []
    raws = msgspec.json.decode(data, type=_RawSections).annotations or []
    for raw, record in zip(raws, sections.annotations, strict=True):
        try:
            _ = decoder.decode(raw)
        except msgspec.ValidationError:
            ids.append(record.id)
    return ids


_RECORDS = {"images": ImageRecord, "annotations": AnnotationRecord, "categories": CategoryRecord}
_SECTIONS = {name: Section(kind) for name, kind in _RECORDS.items()} | {
    "annotations": Section(AnnotationRecord, Records.of, shared=True)
}
_NOUNS = {"images": "image", "annotations": "annotation", "categories": "category"}


class _RawSections(msgspec.Struct):
    images: list[msgspec.Raw] | None = None
    annotations: list[msgspec.Raw] | None = None
    categories: list[msgspec.Raw] | None = None


def _misfit(source: str, data: bytes, reason: str) -> UserError:
    """Decodes the records one by one to find the one that does not fit, and its ids."""
    try:
        sections = msgspec.json.decode(data, type=_RawSections)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return UserError(f"{source}: {reason}; {EXPECTED}")
    for section, kind in _RECORDS.items():
        raws = getattr(sections, section)
        if raws is None:
            return UserError(f"{source}: the list {section!r} is missing; is this a COCO annotation file?")
        decoder = msgspec.json.Decoder(kind, strict=False)
        for index, raw in enumerate(raws):
            try:
                decoder.decode(raw)
            except msgspec.ValidationError as error:
                return UserError(f"{source}: {_record(section, index, raw)}: {_field(str(error), raw)}; correct it")
            except (RecursionError, UnicodeDecodeError) as error:
                return UserError(f"{source}: {section}[{index}]: not readable ({error}); correct or remove it")
    return UserError(f"{source}: {reason}; {EXPECTED}")


def _record(section: str, index: int, raw: msgspec.Raw) -> str:
    fields = _loose(raw)
    ids = [f"{key} {_shown(fields[key])}" for key in ("id", "image_id") if key in fields]
    return f"{_NOUNS[section]} {index} of the list" + (f" ({', '.join(ids)})" if ids else "")


def _field(reason: str, raw: msgspec.Raw) -> str:
    """Rewrites msgspec's `Expected int, got str - at $.bbox[0]` with the field's name in front and its value at the
    end.
    """
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


def _not_json(source: str, data: bytes, reason: str) -> str:
    if not data.strip():
        return f"{source}: the file is empty; give a COCO annotation file"
    if data.startswith(b"\xef\xbb\xbf"):
        return f"{source}: begins with a byte order mark; save it as UTF-8 without one"
    _, marker, position = reason.rpartition("(byte ")
    if not marker:
        return f"{source}: not valid JSON: {reason}; is the download complete?"
    byte = int(position.rstrip(")"))
    line = data.count(b"\n", 0, byte) + 1
    around = _shown(data[max(0, byte - 40) : byte + 20].decode(errors="replace"))
    for literal in (b"NaN", b"Infinity"):
        if data[byte : byte + len(literal) + 1].lstrip(b"-").startswith(literal):
            return (
                f"{source}: {literal.decode()} at byte {byte} (line {line}), near {around!r}: "
                "not a number; remove that annotation or mend its value"
            )
    return f"{source}: not valid JSON at byte {byte} (line {line}), near {around!r}: {reason}"
