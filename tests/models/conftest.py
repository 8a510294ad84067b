"""Torchvision's detectors as oracles."""

from collections.abc import Callable

import pytest
from torchvision.models.detection import FasterRCNN

from torchvision_oracle import random_detector


@pytest.fixture(scope="session")
def torchvision_model() -> Callable[..., FasterRCNN]:
    def build(name: str, **numbers: int) -> FasterRCNN:
        model = random_detector(name, **numbers)
        # Theirs divides the image by the map: with a multiple of 64 that is the true stride of P6 as well.
        model.transform.size_divisible = 64  # pyright: ignore[reportArgumentType]
        return model

    return build
