"""What the tests of exports share."""

from __future__ import annotations

from pathlib import Path

import pytest

from exports import save_model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a detector with masks."""
    folder = tmp_path_factory.mktemp("run")
    return save_model(folder, "model.mask_head={name: fcn, channels: 8, resolution: 5}")
