"""Holds out images as the val split of a data set that has none: by a hash of each file name, without other state.

An image stays in its split when others are added or removed.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

from resdet.coco.annotation_file import AnnotationFile
from resdet.coco.records import ImageRecord
from resdet.coco.selection import with_images, with_remark
from resdet.errors import UserError

COPY = re.compile(r"\.rf\.[0-9a-fA-F]{8,}$")  # Roboflow's mark of a copy of an image: all copies share a split


def position(file_name: str, seed: int) -> float:
    """A number in [0, 1) for a name; the folder counts, and the ending and Roboflow's mark of copies do not."""
    name = COPY.sub("", PurePosixPath(file_name).with_suffix("").as_posix()) if PurePosixPath(file_name).name else ""
    digest = hashlib.blake2b(f"{seed} {name}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def part_of(file: AnnotationFile, split: str, *, share: float, seed: int) -> AnnotationFile:
    """The images of `split`, "train" or "val", with their annotations. Val is the share whose names have the lowest
    positions, at least one image, and leaves one for training.
    """
    if len(file.images) < 2:
        raise UserError(f"{file.source}: has one image, so none can be held out as val; name a val split")
    places = {image.id: position(image.file_name or "", seed) for image in file.images}
    ordered = sorted(places, key=lambda image: (places[image], image))
    held = {image for image in ordered[:-1] if places[image] < share} or {ordered[0]}

    def wanted(image: ImageRecord) -> bool:
        return (image.id in held) == (split == "val")

    chosen = with_images(file, wanted)
    remark = f"{len(held)} of {len(file.images)} images are held out as val by a hash of their names (data.val_share)"
    return with_remark(chosen, remark)
