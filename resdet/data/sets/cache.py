"""The folder for data sets that resdet generates or converts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from resdet.files import replace_file, writing


def cache_folder() -> Path:
    """$RESDET_CACHE if it is set, otherwise ~/.cache/resdet."""
    return Path(os.environ.get("RESDET_CACHE") or Path.home() / ".cache" / "resdet")


def write_cached(target: Path, content: dict[str, Any]) -> None:
    """Writes a whole json file into the cache or nothing, even if several processes write at the same time."""
    with writing(target.parent, "set RESDET_CACHE to a folder with room"):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, json.dumps(content, allow_nan=False).encode())
