"""Videos and cameras as sequences of images, of which one is in memory at a time; OpenCV decodes them."""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from resdet.coco.image_files import MAX_PIXELS, MAX_SIDE
from resdet.data.images.decode import ImageError
from resdet.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")  # in lower case
# The first bytes of these formats, with their position. A text, such as a play list, could name other files and hosts.
SIGNATURES = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"), (4, b"skip"), (0, b"RIFF"),
    (0, b"\x1a\x45\xdf\xa3"), (0, b"\0\0\x01\xba"), (0, b"\0\0\x01\xb3"), (0, b"\x30\x26\xb2\x75"),
)  # fmt: skip
USUAL_RATE, HIGHEST_RATE = 25.0, 240.0  # frames a second: where a file has no rate, and the largest that is believed
CAMERA_RATE = 10.0  # frames a second of the drawn video of a camera
CUT_OFF = 0.9  # a file whose frames end before this part of the duration in its header is cut off
SLACK = 0.2  # seconds of that duration that do not count

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # OpenCV reads it with the first video; errors are reported here


@dataclass(frozen=True)
class Frame:
    """An image of a video or a camera: its number from 0, its time in seconds, and the images a second of the video."""

    number: int
    seconds: float
    rate: float
    pixels: UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Video:
    """A video file; `every=5` takes each fifth frame, from the first."""

    path: str | Path
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"every={self.every} must be at least 1, which takes all frames")

    @property
    def name(self) -> str:
        return str(self.path)

    def frames(self) -> Iterator[Frame]:
        """The frames in their order; raises ImageError for a file that is no video, and at the end of a damaged one."""
        with _opened(Path(self.path)) as capture:
            rate, duration = _rate(capture), _duration(capture)
            number, end = 0, 0.0
            while capture.grab():
                end = _milliseconds(capture, number, rate) / 1000
                if number % self.every == 0:
                    yield Frame(number, end, rate / self.every, _pixels(capture, self.name))
                number += 1
        if number == 0:
            raise ImageError(f"{self.name}: has no frame that can be decoded; convert or download it again")
        if end + 1 / rate < CUT_OFF * duration - SLACK:
            raise ImageError(
                f"{self.name}: ends at {end:.1f} of {duration:.1f} seconds, after frame {number - 1}; it is cut off or"
                " damaged, download it again"
            )


@dataclass(frozen=True)
class Camera:
    """A camera of this machine by its number, from 0; `frames` is the number of images to take, None: without end."""

    number: int = 0
    frames_taken: int | None = None

    def __post_init__(self) -> None:
        if self.number < 0 or (self.frames_taken is not None and self.frames_taken < 1):
            raise UserError(
                f"camera {self.number}, {self.frames_taken} frames: give a number from 0, and 1 frame or more"
            )

    @property
    def name(self) -> str:
        return f"camera {self.number}"

    def frames(self) -> Iterator[Frame]:
        """The images as they come, with the seconds since the first; raises ImageError if there are none."""
        capture = cv2.VideoCapture(self.number)
        try:
            _ = capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest image, where the driver permits it
            number, start = 0, time.monotonic()
            while number != self.frames_taken:
                if not capture.grab():
                    raise ImageError(
                        f"{self.name}: gives {'no' if number == 0 else 'no more'} images; is it connected?"
                    )
                yield Frame(number, time.monotonic() - start, CAMERA_RATE, _pixels(capture, self.name))
                number += 1
        finally:
            capture.release()


Clip = Video | Camera


def is_video(path: str | Path) -> bool:
    """Whether a name is that of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    """The open video. It is opened by the number of the file, because OpenCV crashes on names that are not UTF-8."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe must not block the reader
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); restore the file or its permissions") from None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ImageError(f"{path}: is no regular file; give a video file")
        head = file.read(16)
        if not any(head[start:].startswith(mark) for start, mark in SIGNATURES):
            raise ImageError(f"{path}: is not a readable video ({', '.join(VIDEO_SUFFIXES)}); convert it")
        capture = cv2.VideoCapture(f"/proc/self/fd/{descriptor}", cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise ImageError(
                    f"{path}: is a damaged video, or one of an unknown codec; convert or download it again"
                )
            _check_size(capture, path)
            yield capture
        finally:
            capture.release()


def _check_size(capture: Any, path: Path) -> None:
    width, height = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ImageError(f"{path}: has frames of {width:.0f} x {height:.0f} pixels, too many; downscale it")


def _pixels(capture: Any, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """The frame that was grabbed, as RGB."""
    try:
        decoded, image = capture.retrieve()
    except cv2.error:
        decoded, image = False, None
    if not decoded or image is None:
        raise ImageError(f"{name}: has a frame that cannot be decoded; convert or download it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB)


def _rate(capture: Any) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if math.isfinite(rate) and 0 < rate <= HIGHEST_RATE else USUAL_RATE


def _duration(capture: Any) -> float:
    """Seconds by the header, 0 where it does not say."""
    count, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    return count / rate if math.isfinite(count) and count > 0 and math.isfinite(rate) and rate > 0 else 0.0


def _milliseconds(capture: Any, number: int, rate: float) -> float:
    """The time of the frame that was grabbed; by its number where the file has no times."""
    said = capture.get(cv2.CAP_PROP_POS_MSEC)
    return said if math.isfinite(said) and said > 0 else 1000 * number / rate
