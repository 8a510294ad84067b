"""The images of a prediction: files, folders, patterns, videos, arrays, tensors, PIL images, and lists of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeGuard

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from resdet.data.images.decode import ImageError, read_image
from resdet.errors import UserError
from resdet.predict.addresses import is_address, read_address
from resdet.predict.image_list import images_at, is_one_file
from resdet.predict.pages import note_of_pages
from resdet.predict.pixels import ACCEPTED, ChannelOrder, InMemory, as_rgb
from resdet.predict.video import Camera, Clip, Video, is_video

OneImage = str | Path | InMemory | Clip
Images = OneImage | Iterable[OneImage]


@dataclass(frozen=True)
class Moment:
    """The place of an image in a video or of a camera: the clip's name, the number from 0, the time in seconds, and the
    images a second of the clip. `live`: of a camera, whose images come at any time.
    """

    clip: str
    number: int
    seconds: float
    rate: float
    live: bool


@dataclass(frozen=True)
class Source:
    """One image: its name in messages, and the function that gives its pixels or raises ImageError.

    `path` is its file, None for an image in memory; `moment` is its place in a video.
    """

    name: str
    read: Callable[[], UInt8[np.ndarray, "H W 3"]]
    path: Path | None = None
    moment: Moment | None = None

    @property
    def given(self) -> str:
        """The path, address or clip that the image comes from, as it was given."""
        return self.name if self.moment is None else self.moment.clip

    def note(self) -> str | None:
        """What should be known about the file: a TIFF with several pages, of which the first is read."""
        return None if self.path is None or self.moment is not None else note_of_pages(self.path)


@dataclass(frozen=True)
class Reading:
    """How images are read (see `as_rgb` and `read_image`)."""

    channels: ChannelOrder = "rgb"
    sixteen_bit: str = "error"
    recursive: bool = False

    def sources(self, images: object, *, clips: bool = True) -> Iterator[Source]:
        """Every image of the argument in order. An iterator is read one by one; anything else is listed first. The
        frames of a video are decoded one by one, too.

        Raises UserError for a path that does not exist, for a value that is no image, and without `clips` for a video
        in a list.
        """
        if is_image_or_path(images):
            found = iter(self._of(images, "the image"))
        elif isinstance(images, dict | bytes | bytearray) or not isinstance(images, Iterable):
            raise UserError(f"a value of type {type(images).__name__} is no image; give {ACCEPTED}")
        else:
            found = (
                each for number, image in enumerate(images) for each in self._of(image, f"image {number} of the list")
            )
        found = found if isinstance(images, Iterator) else iter(list(found))
        return (source for each in found for source in _each(each, clips=clips))

    def is_clip(self, images: object) -> bool:
        """Whether the argument is a single video or camera, whose predictions are taken one by one."""
        return isinstance(images, Clip) or (isinstance(images, str | Path) and is_video(images) and is_one_file(images))

    def is_one(self, images: object) -> bool:
        """Whether the argument is a single image, and not a list, a folder or a pattern."""
        return is_one_file(images) if isinstance(images, str | Path) else is_image_or_path(images)

    def _of(self, image: object, name: str) -> list[Source | Clip]:
        if isinstance(image, Clip):
            return [image]
        if isinstance(image, str) and is_address(image):
            return [Source(image, partial(read_address, image, sixteen_bit=self.sixteen_bit))]
        if isinstance(image, str | Path):
            paths = images_at(image, recursive=self.recursive)
            return [Video(path) if is_video(path) else self._file(path) for path in paths]
        if not is_in_memory(image):
            raise UserError(f"{name} is of type {type(image).__name__}; give {ACCEPTED}")
        read = partial(as_rgb, image, channels=self.channels, sixteen_bit=self.sixteen_bit, name=name)
        return [Source(name, read)]

    def _file(self, path: Path) -> Source:
        return Source(str(path), partial(read_image, path, sixteen_bit=self.sixteen_bit), path)


def _each(given: Source | Clip, *, clips: bool) -> Iterator[Source]:
    """The images of a clip; its damage is a source that cannot be read, the last one. Each frame is held by its source
    alone.
    """
    if isinstance(given, Source):
        yield given
        return
    if not clips:
        raise UserError(f"{given.name}: is a video in a list; take the predictions one by one, from stream(...)")
    path = Path(given.path) if isinstance(given, Video) else None
    live = isinstance(given, Camera)
    try:
        for frame in given.frames():
            moment = Moment(given.name, frame.number, frame.seconds, frame.rate, live)
            yield Source(f"{given.name}, frame {frame.number}", partial(np.asarray, frame.pixels), path, moment)
    except ImageError as error:
        yield Source(given.name, partial(_refuse, error), path)


def _refuse(error: ImageError) -> UInt8[np.ndarray, "H W 3"]:
    raise error


def is_image_or_path(value: object) -> bool:
    return isinstance(value, str | Path | Clip) or is_in_memory(value)


def is_in_memory(value: object) -> TypeGuard[InMemory]:
    return isinstance(value, Image.Image | np.ndarray | Tensor)
