"""Where data sets that resdet makes or converts are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$RESDET_CACHE, else ~/.cache/resdet."""
    return Path(os.environ.get("RESDET_CACHE") or Path.home() / ".cache" / "resdet")
