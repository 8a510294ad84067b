"""A data set in shards: tar archives with an image and a json a sample, as WebDataset's, and shards.json beside them.

    FOLDER/shards.json         {"format": "resdet shards 1", "classes": [...], "splits": {"train": [...]}}
    FOLDER/train-000000.tar    00000000.jpg  00000000.json  00000001.jpg  00000001.json

The json of a sample has id, file_name, height and width of the image and `annotations` as in COCO. Nothing else is
read, and nothing that could run.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from resdet.coco.image_files import IMAGE_SUFFIXES
from resdet.coco.records import CategoryRecord
from resdet.coco.shards import SUFFIX, image_bytes, members, read_member
from resdet.data.sets.cache import converted_file, state
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError
from resdet.files import read_regular

VERSION = 1  # of the conversion: part of the cached file's name
MANIFEST = "shards.json"
FORMAT = "resdet shards 1"
LOOKS_FOR = f"{MANIFEST} beside tar archives"
LARGEST_MANIFEST = 64 * 2**20  # bytes


class Shard(msgspec.Struct):
    file: str
    samples: int


class Manifest(msgspec.Struct):
    format: str
    classes: list[CategoryRecord]
    splits: dict[str, list[Shard]]


class _Sample(msgspec.Struct):
    id: int
    height: int
    width: int
    file_name: str = ""
    annotations: list[dict[str, Any]] = []
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None


def recognizes(place: Path) -> bool:
    return (place / MANIFEST).is_file()


def splits(place: Path) -> tuple[str, ...]:
    """The splits that the data set has."""
    return tuple(split for split in ("train", "val", "test") if read_manifest(place / MANIFEST).splits.get(split))


def read_manifest(file: Path) -> Manifest:
    """Raises UserError for a file of another form, and for names that are not those of shards beside it."""
    try:
        data = read_regular(file, largest=LARGEST_MANIFEST)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; give the folder of a data set in shards") from None
    return parse_manifest(data, str(file))


def parse_manifest(data: bytes, source: str) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UserError(
            f"{source}: is no list of shards ({error}); make it with convert-data --format shards"
        ) from None
    if manifest.format != FORMAT:
        raise UserError(f"{source}: format {manifest.format[:60]!r} is not {FORMAT!r}; convert the data set again")
    for shards in manifest.splits.values():
        for shard in shards:
            if PurePosixPath(shard.file).name != shard.file or not shard.file.endswith(SUFFIX) or "\\" in shard.file:
                raise UserError(
                    f"{source}: {shard.file[:200]!r} is no name of a shard ({SUFFIX}) beside it; correct it"
                )
    return manifest


def read(place: Path, split: str) -> tuple[Path, Path]:
    """The COCO file in the cache, and the folder that its file names are relative to: SHARD/MEMBER."""
    manifest = read_manifest(place / MANIFEST)
    shards = manifest.splits[split]
    files = [place / MANIFEST, *(place / shard.file for shard in shards)]

    def convert() -> dict[str, Any]:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for shard in shards:
            for member, sample in _samples(place / shard.file, shard.samples):
                images.append(_image(f"{shard.file}/{member}", sample))
                annotations += [{**each, "image_id": sample.id} for each in sample.annotations]
        return {
            "info": {"source": f"{place} ({split})"},
            "images": images,
            "annotations": annotations,
            "categories": msgspec.to_builtins(manifest.classes),
        }

    fingerprint = [f"shards {VERSION} {split}", *map(state, files)]
    return converted_file(f"shards-{place.absolute().name}-{split}", fingerprint, convert), place


def _image(name: str, sample: _Sample) -> dict[str, Any]:
    image: dict[str, Any] = {"id": sample.id, "file_name": name, "height": sample.height, "width": sample.width}
    federated = {
        "neg_category_ids": sample.neg_category_ids,
        "not_exhaustive_category_ids": sample.not_exhaustive_category_ids,
    }
    return image | {key: value for key, value in federated.items() if value is not None}


def _samples(shard: Path, count: int) -> Iterator[tuple[str, _Sample]]:
    """The name of the image and the json of each sample. Raises UserError for a shard that is not whole."""
    try:
        names = members(shard)
    except OSError as error:
        raise UserError(f"{shard}: {error.strerror}; copy or fetch it again") from None
    found = 0
    for name in names:
        stem, _, suffix = name.partition(".")
        if f".{suffix.lower()}" not in IMAGE_SUFFIXES:
            continue
        if f"{stem}.json" not in names:
            raise UserError(f"{shard}: {name[:200]!r} has no {stem[:200]}.json beside it; make the shard again")
        try:
            yield name, msgspec.json.decode(read_member(shard / f"{stem}.json"), type=_Sample)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise UserError(f"{shard}: {stem[:200]}.json: {error}; make the shard again") from None
        found += 1
    if found != count:
        raise UserError(f"{shard}: has {found} samples, and {MANIFEST} says {count}; copy or fetch it again")


def write_shard(target: Path, samples: Sequence[tuple[Path, dict[str, Any]]]) -> None:
    """A tar archive of images and their json, without the time and the user, so that the same samples give the same
    bytes. Raises OSError.
    """
    with tarfile.open(target, "w:", format=tarfile.USTAR_FORMAT) as archive:
        for number, (image, sample) in enumerate(samples):
            key = f"{number:08d}"
            for name, data in (
                (f"{key}{image.suffix.lower()}", image_bytes(image)),
                (f"{key}.json", json.dumps(sample, allow_nan=False).encode()),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def manifest_text(splits: dict[str, CocoDataset], shards: dict[str, list[Shard]]) -> str:
    first = next(iter(splits.values()))
    pairs = zip(first.category_ids.tolist(), first.class_names, strict=True)
    content = {
        "format": FORMAT,
        "classes": [{"id": number, "name": name} for number, name in pairs],
        "splits": {split: msgspec.to_builtins(each) for split, each in shards.items()},
    }
    return json.dumps(content, indent=1)
