"""The images of a prediction: files, folders, patterns, arrays, tensors, PIL images, and lists of them."""

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

from resdet.data.images.decode import read_image
from resdet.errors import UserError
from resdet.predict.addresses import is_address, read_address
from resdet.predict.image_list import images_at, is_one_file
from resdet.predict.pixels import ACCEPTED, ChannelOrder, InMemory, as_rgb

OneImage = str | Path | InMemory
Images = OneImage | Iterable[OneImage]


@dataclass(frozen=True)
class Source:
    """One image: its name in messages, and the function that gives its pixels or raises ImageError.

    `path` is its file, None for an image in memory.
    """

    name: str
    read: Callable[[], UInt8[np.ndarray, "H W 3"]]
    path: Path | None = None


@dataclass(frozen=True)
class Reading:
    """How images are read (see `as_rgb` and `read_image`)."""

    channels: ChannelOrder = "rgb"
    sixteen_bit: str = "error"
    recursive: bool = False

    def sources(self, images: object) -> Iterator[Source]:
        """Every image of the argument in order. An iterator is read one by one; anything else is listed first.

        Raises UserError for a path that does not exist and for a value that is no image.
        """
        if is_image_or_path(images):
            return iter(self._of(images, "the image"))
        if isinstance(images, dict | bytes | bytearray) or not isinstance(images, Iterable):
            raise UserError(f"a value of type {type(images).__name__} is no image; give {ACCEPTED}")
        found = (
            source for number, image in enumerate(images) for source in self._of(image, f"image {number} of the list")
        )
        return found if isinstance(images, Iterator) else iter(list(found))

    def is_one(self, images: object) -> bool:
        """Whether the argument is a single image, and not a list, a folder or a pattern."""
        return is_one_file(images) if isinstance(images, str | Path) else is_image_or_path(images)

    def _of(self, image: object, name: str) -> list[Source]:
        if isinstance(image, str) and is_address(image):
            return [Source(image, partial(read_address, image, sixteen_bit=self.sixteen_bit))]
        if isinstance(image, str | Path):
            return [self._file(path) for path in images_at(image, recursive=self.recursive)]
        if not is_in_memory(image):
            raise UserError(f"{name} is of type {type(image).__name__}; give {ACCEPTED}")
        read = partial(as_rgb, image, channels=self.channels, sixteen_bit=self.sixteen_bit, name=name)
        return [Source(name, read)]

    def _file(self, path: Path) -> Source:
        return Source(str(path), partial(read_image, path, sixteen_bit=self.sixteen_bit), path)


def is_image_or_path(value: object) -> bool:
    return isinstance(value, str | Path) or is_in_memory(value)


def is_in_memory(value: object) -> TypeGuard[InMemory]:
    return isinstance(value, Image.Image | np.ndarray | Tensor)
