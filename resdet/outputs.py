"""The files that a command writes where its user says: whole or not at all, and never in place of somebody else's file.

Every file carries a mark of resdet: JSON the key `resdet` with the version, a page its generator, a PNG its software.
A file without the mark is not replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from resdet.errors import UserError
from resdet.files import ANOTHER_OUTPUT, replace_file, write_files, writing
from resdet.version import __version__

ANOTHER_JSON = "choose another file for --json"
SOFTWARE = {"Software": f"resdet {__version__}"}  # the mark of a PNG, as matplotlib and Pillow take it
MARKS = (b'"resdet": "', b'<meta name="generator" content="resdet">', b"Software\0resdet ")
HEAD = 4096  # bytes, in which the mark stands


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON object with the mark of resdet."""
    return {"resdet": __version__, **content}


def check_output(path: Path, remedy: str = ANOTHER_OUTPUT) -> None:
    """Raises UserError if `path` is a file with other content than resdet writes; a command asks before it works."""
    with writing(path, remedy):
        if not path.is_file():  # absent, or a pipe or a device, which has no content to lose
            return
        with path.open("rb") as file:
            head = file.read(HEAD)
    if head and not any(mark in head for mark in MARKS):
        raise UserError(f"{path}: exists, and resdet did not write it; {remedy}, or delete the file first")


def check_outputs(folder: Path, names: Iterable[str]) -> None:
    """`check_output` for files in the output folder of a command."""
    for name in names:
        check_output(folder / name)


def write_output(path: Path, data: bytes, remedy: str = ANOTHER_OUTPUT) -> None:
    """Writes the output file of a command completely or not at all. Raises UserError whose message ends
    with `remedy`, also where the file is not resdet's.
    """
    check_output(path, remedy)
    with writing(path, remedy):
        replace_file(path, data)


def write_outputs(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files, by name, into the output folder of a command, which is created. Raises UserError if that fails, or
    if one of the files is not resdet's.
    """
    check_outputs(folder, contents)
    write_files(folder, contents)
