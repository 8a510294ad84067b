"""The import of albumentations, which the rest of the package takes from here."""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise it asks the network for a newer version when it is imported

import albumentations as A

__all__ = ["A"]
