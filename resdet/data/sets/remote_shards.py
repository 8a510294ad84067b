"""Fetches a data set in shards from an address into the cache: https, http, and whatever fsspec knows (s3, gs, ...).

The shards are then read from the disk, so that the batches are those of a local folder. Each is fetched once, and is
there whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from resdet.coco.shards import members
from resdet.data.sets.cache import cache_folder
from resdet.data.sets.index import alone
from resdet.data.sets.shard_folder import LARGEST_MANIFEST, MANIFEST, parse_manifest
from resdet.downloads import open_address
from resdet.errors import UserError
from resdet.files import replace_file, whole_file, writing
from resdet.text import shortened

PART = 2**20  # bytes that are read at a time
REMEDY = "check the address, or fetch the folder yourself and give its path"


def is_remote(place: str) -> bool:
    """Whether a folder is given by an address of any scheme, and not by a path."""
    return "://" in place


def fetched(address: str) -> Path:
    """The folder in the cache with all shards of an address. Raises UserError for one that cannot be read."""
    address = address.rstrip("/").removesuffix(f"/{MANIFEST}")
    folder = cache_folder() / "shards" / hashlib.sha256(os.fsencode(address)).hexdigest()[:24]
    source = f"{address}/{MANIFEST}"
    data = b"".join(_limited(_parts(source), LARGEST_MANIFEST, source))
    manifest = parse_manifest(data, source)
    kept = folder / MANIFEST
    with alone(folder), writing(folder, "set RESDET_CACHE to a folder with room"):
        if kept.exists() and kept.read_bytes() != data:  # another data set is there now
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for shard in (shard for split in manifest.splits.values() for shard in split):
            if not (folder / shard.file).exists():
                _fetch(f"{address}/{shard.file}", folder / shard.file)
        replace_file(kept, data)
    return folder


def _fetch(address: str, target: Path) -> None:
    with whole_file(target) as temporary:
        with temporary.open("wb") as file:
            for part in _parts(address):
                _ = file.write(part)
        try:
            _ = members(temporary)
        except UserError as error:
            raise UserError(str(error).replace(str(temporary), address)) from None


def _parts(address: str) -> Iterator[bytes]:
    """The content of an address, part by part."""
    try:
        with _opened(address) as file:
            while part := file.read(PART):
                yield part
    except ImportError as error:
        raise UserError(f"{address}: {shortened(str(error), 200)}; install what it asks for") from None
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(f"{address}: cannot be fetched ({shortened(str(error), 120)}); {REMEDY}") from None
    except (OSError, HTTPException, ValueError, RuntimeError) as error:
        raise UserError(f"{address}: cannot be fetched ({shortened(str(error), 200)}); {REMEDY}") from None


def _opened(address: str) -> Any:
    if address.startswith(("http://", "https://")):
        return open_address(address)
    import fsspec  # only for such an address: it takes a while

    return fsspec.open(address, mode="rb")


def _limited(parts: Iterator[bytes], most: int, source: str) -> Iterator[bytes]:
    size = 0
    for part in parts:
        size += len(part)
        if size > most:
            raise UserError(f"{source}: has more than {most} bytes, too many for a list of shards; {REMEDY}")
        yield part
