"""Files that are whole or absent, whatever ends the process while they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from resdet.errors import UserError


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder (creations, renames) are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    write_synced(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)


def write_outputs(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Files, by name, of the folder that a command was given; it is made. Raises UserError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            replace_file(folder / name, data)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --output") from None


def readable_json(content: object) -> bytes:
    """For people and programs: indented, every script as it is."""
    return json.dumps(content, indent=1, ensure_ascii=False).encode()
