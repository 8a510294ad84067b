"""The folder for data sets that resdet generates or converts."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$RESDET_CACHE if it is set, otherwise ~/.cache/resdet."""
    return Path(os.environ.get("RESDET_CACHE") or Path.home() / ".cache" / "resdet")
