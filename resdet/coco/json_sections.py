"""Reads the lists of a large JSON object in portions, so that neither the text nor its records are all in memory.

    {"info": {...}, "images": [{...}, ...], "annotations": [{...}, ...]}

A portion ends behind a record, which is certain, because its text from the beginning of a record is complete JSON. What
is not as plain as this raises `Unusual`, and the caller then parses the whole text at once, which names what is wrong.

Several processes can read the portions of a list: where one begins and ends is guessed from its place in the file, and
the guess was right if it and all portions before it are complete JSON. From the first on that is not, one process goes
on alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

import msgspec

from resdet.coco.forks import forked

BLOCK = 2**20  # bytes that are read at a time
NEARBY = 2**16  # bytes at the end of a portion in which the end of a record is looked for first
CUT = 16  # bytes at the end of a portion: a number or an escape that is cut there looks wrong
SHARED = 2**22  # bytes of a portion that another process reads

_SPACE = re.compile(rb"[ \t\r\n]*")
_KEY = re.compile(rb'[ \t\r\n]*"((?:[^"\\]|\\.)*)"[ \t\r\n]*:[ \t\r\n]*')
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_PLACE = re.compile(r"\(byte (\d+)\)")
_ANYTHING = msgspec.json.Decoder(msgspec.Raw)


class Unusual(Exception):  # no error: the text is read in another way
    """The text is not plain, and perhaps not right."""


@dataclass(frozen=True)
class Section:
    """A list of records of this `kind`, whose portions are given as `packed` makes them."""

    kind: type
    packed: Callable[[list[Any]], Any] = list
    shared: bool = False  # whether several processes may read it


def read_sections(
    file: BufferedIOBase, sections: Mapping[str, Section], *, processes: int = 1
) -> Generator[tuple[str, Any], None, None]:
    """The lists that `sections` names, in portions, each with the name of its list; a list without a record gives one
    portion without a record. Raises Unusual, perhaps after some portions.
    """
    text = _Text(file)
    missing = set(sections)
    text.expect(b"{")
    while True:
        key = text.key()
        if key in sections and key not in missing:
            raise Unusual("a list is there twice")
        if key in missing:
            missing.remove(key)
            text.expect(b"[")
            section = sections[key]
            decoder = msgspec.json.Decoder(list[section.kind])
            if section.shared and processes > 1:
                place = text.place()
                for place, packed in _read_by_others(text, section, decoder, processes):  # noqa: B007  # used below
                    yield key, packed
                text.jump(place)
            for records in _portions(text, decoder):
                yield key, section.packed(records)
        else:
            text.skip_value()
        if not text.another():
            break
    text.expect_end()
    if missing:
        raise Unusual("a list is missing")


class _Text:
    """The text from a place on, of which only a part is in memory."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file, self._ended = file, False
        self.rest = b""
        self.more()

    def more(self) -> None:
        """Reads on: as much as is in memory, at least a block."""
        if self._ended:
            raise Unusual("the text ends too early")
        block = self._file.read(max(BLOCK, len(self.rest)))
        self._ended = not block
        self.rest += block

    def drop(self, count: int) -> None:
        self.rest = self.rest[count:]

    def place(self) -> int:
        """Where in the file the rest begins."""
        return self._file.tell() - len(self.rest)

    def jump(self, place: int) -> None:
        _ = self._file.seek(place)
        self.rest, self._ended = b"", False
        self.more()

    def read_at(self, place: int, count: int) -> bytes:
        """Independent of the rest, also in a fork."""
        return os.pread(self._file.fileno(), count, place)

    def expect(self, mark: bytes) -> None:
        if self._next() != mark:
            raise Unusual(f"no {mark!r}")
        self.drop(1)

    def another(self) -> bool:
        """Whether a comma follows, and not the end of the object."""
        mark = self._next()
        if mark not in (b",", b"}"):
            raise Unusual("neither a comma nor the end")
        self.drop(1)
        return mark == b","

    def key(self) -> str:
        while not (found := _KEY.match(self.rest)):
            self.more()
        self.drop(found.end())
        try:
            return msgspec.json.decode(b'"' + found[1] + b'"', type=str)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unusual(str(error)) from None

    def skip_value(self) -> None:
        while (end := _end_of_value(self.rest, _ANYTHING)) is None:
            self.more()
        self.drop(end)

    def expect_end(self) -> None:
        while _SPACE.fullmatch(self.rest):
            if self._ended:
                return
            self.rest = b""
            self.more()
        raise Unusual("text behind the end")

    def _next(self) -> bytes:
        """The next mark that is no space."""
        while True:
            found = _SPACE.match(self.rest)
            self.drop(found.end() if found else 0)
            if self.rest:
                return self.rest[:1]
            self.more()


def _read_by_others(
    text: _Text, section: Section, decoder: msgspec.json.Decoder[list[Any]], processes: int
) -> Iterator[tuple[int, Any]]:
    """Portions from the beginning of the list on, packed, and where the next begins."""
    start = text.place()

    def between(number: int) -> tuple[int, int] | None:
        """Where a portion ends by the marks behind its place, and where the next begins; a guess."""
        place = start + number * SHARED
        found = _BETWEEN.search(text.read_at(place, NEARBY))
        return found and (place + found.start() + 1, place + found.end() - 1)

    def portion(number: int) -> tuple[int, Any] | None:
        before, behind = between(number) if number else (start, start), between(number + 1)
        if before is None or behind is None or before[1] >= behind[0]:
            return None
        try:
            records = _decoded(decoder, b"[" + text.read_at(before[1], behind[0] - before[1]) + b"]")
        except Unusual:
            return None
        return (behind[1], section.packed(records)) if records else None

    yield from forked(portion, processes)


def _portions(text: _Text, decoder: msgspec.json.Decoder[list[Any]]) -> Iterator[list[Any]]:
    """The records of a list, whose opening bracket was read."""
    while True:
        if (end := _last_record_end(text.rest)) and (records := _decoded(decoder, b"[" + text.rest[:end] + b"]")):
            text.drop(end)
            text.expect(b",")
            yield records
            continue
        whole = b"[" + text.rest
        end = _end_of_value(whole, decoder)
        if end is None:
            text.more()
            continue
        records = _decoded(decoder, whole[:end])
        if records is None:
            raise Unusual("a list that cannot be read")
        text.drop(end - 1)
        yield records
        return


def _last_record_end(text: bytes) -> int | None:
    """Where the last record ends behind which another begins, by the marks between them; a guess."""
    for start in (max(0, len(text) - NEARBY), 0):
        ends = [match.start() + 1 for match in _BETWEEN.finditer(text, start)]
        if ends:
            return ends[-1]
    return None


def _decoded(decoder: msgspec.json.Decoder[list[Any]], text: bytes) -> list[Any] | None:
    """None for text that is not complete or not right."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise Unusual(str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _end_of_value(text: bytes, decoder: msgspec.json.Decoder[Any]) -> int | None:
    """Where the value at the beginning of a text ends; None if it is not complete."""
    try:
        _ = decoder.decode(text)
    except msgspec.ValidationError as error:
        raise Unusual(str(error)) from None
    except msgspec.DecodeError as error:
        found = _PLACE.search(str(error))
        place = int(found[1]) - 1 if found else len(text)  # msgspec counts from 1
        if "trailing characters" in str(error):
            return place
        if "truncated" in str(error) or place >= len(text) - CUT:
            return None
        raise Unusual(str(error)) from None
    except (RecursionError, UnicodeDecodeError) as error:
        raise Unusual(str(error)) from None
    return None  # a number could go on; and behind the value at least the end of the object has to follow
