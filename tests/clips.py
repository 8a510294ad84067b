"""Small videos for tests, written by OpenCV, and a camera that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np


def frame_of(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """An RGB picture whose grey tells its number, modulo 10."""
    return np.full((height, width, 3), 10 + 25 * (number % 10), np.uint8)


def number_of(pixels: np.ndarray) -> int:
    return round((float(pixels.mean()) - 10) / 25)


def write_clip(path: Path, frames: int = 6, *, codec: str = "MJPG", rate: float = 10.0, noise: bool = False) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, (64, 48))
    rng = np.random.default_rng(0)
    for number in range(frames):
        _ = writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) if noise else frame_of(number))
    writer.release()
    return path


class StandIn:
    """Gives three images, as a camera that is then unplugged."""

    def __init__(self) -> None:
        self.given, self.released = 0, False

    def set(self, key: int, value: float) -> bool:
        return True

    def grab(self) -> bool:
        self.given += 1
        return self.given <= 3

    def retrieve(self) -> tuple[bool, Any]:
        return True, frame_of(self.given)

    def release(self) -> None:
        self.released = True
