"""Writes a video of drawings: VP8 in a webm file, which every browser plays.

Of the codecs of browsers OpenCV's packages encode VP8 and VP9, which takes five times as long; they have no H.264.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from resdet.errors import UserError
from resdet.files import whole_file, writing

SUFFIX = ".webm"
CODEC = "VP80"
LONGEST_PAUSE = 60.0  # seconds that a frame of a camera is shown at most


class DrawnVideo:
    """Takes the frames of a video one by one. All have the size of the first; sides are rounded up to even numbers,
    because colours are stored for two pixels by two.
    """

    def __init__(self, file: Path, rate: float) -> None:
        self.file, self.rate = file, rate
        self.written = 0
        self._writer: cv2.VideoWriter | None = None
        self._last: UInt8[np.ndarray, "H W 3"] | None = None

    def add(self, picture: UInt8[np.ndarray, "H W 3"], seconds: float | None = None) -> None:
        """Writes a frame. With `seconds`, the time since the first frame, the frame before is shown until then."""
        if self._writer is None:
            self._open(picture.shape[0] + picture.shape[0] % 2, picture.shape[1] + picture.shape[1] % 2)
        if seconds is not None and self._last is not None:
            missing = round(seconds * self.rate) - self.written
            for _ in range(min(missing, round(LONGEST_PAUSE * self.rate))):
                self._write(self._last)
        self._last = self._even(picture)
        self._write(self._last)

    def close(self) -> None:
        """Raises UserError if not everything is in the file."""
        if self._writer is None:
            return
        self._writer.release()
        reader = cv2.VideoCapture(str(self.file.absolute()), cv2.CAP_FFMPEG)
        count = reader.get(cv2.CAP_PROP_FRAME_COUNT)
        reader.release()
        if count != self.written:
            raise UserError(f"{self.file.parent}: the video could not be written completely; is the disk full?")

    def _open(self, height: int, width: int) -> None:
        self._size = (height, width)
        # OpenCV chooses the format by the suffix, and temporary files have another one.
        link = self.file.with_name(f"{self.file.name}{SUFFIX}")
        link.symlink_to(self.file.name)
        try:
            with _without_remarks():
                self._writer = cv2.VideoWriter(
                    str(link.absolute()), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODEC), self.rate, (width, height)
                )
        finally:
            link.unlink()
        if not self._writer.isOpened():
            raise UserError(f"{self.file.parent}: no video of {width} x {height} pixels can be written there")

    def _even(self, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """As BGR, with the last row and column repeated where a side is odd."""
        below, right = self._size[0] - picture.shape[0], self._size[1] - picture.shape[1]
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if below < 0 or right < 0 or below > 1 or right > 1:  # a video may change its size
            return cv2.resize(bgr, self._size[::-1], interpolation=cv2.INTER_AREA)
        return cv2.copyMakeBorder(bgr, 0, below, 0, right, cv2.BORDER_REPLICATE)

    def _write(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        assert self._writer is not None
        self._writer.write(frame)
        self.written += 1


@contextmanager
def _without_remarks() -> Iterator[None]:
    """For the moment of opening nothing is written to the standard error: OpenCV says there that webm has no list of
    codecs, and goes on.
    """
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        _ = os.dup2(nothing, 2)
        yield
    finally:
        _ = os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextmanager
def drawn_video(path: Path, rate: float) -> Iterator[DrawnVideo]:
    """The video that is at `path` when the block ends. Raises UserError if it cannot be written."""
    with writing(path), whole_file(path) as temporary:
        video = DrawnVideo(temporary, rate)
        yield video
        video.close()
