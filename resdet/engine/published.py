"""Published detectors by name, by file or on the Hugging Face Hub, as files of resdet.

Those of other toolkits are converted once, into the cache.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch

from resdet.downloads import fetched
from resdet.engine.converted import convert_to_file
from resdet.errors import UserError
from resdet.files import writing
from resdet.version import __version__
from resdet.weights import detectron2_zoo
from resdet.weights.convert import format_of
from resdet.weights.detectron2_zoo import SETS, ZOO, ZooDetector, detector_of_file, zoo_address
from resdet.weights.hub import hub_detector, hub_name
from resdet.weights.read import read_weights

# The detectors of torchvision that have a layout of resdet, with the names of their weights.
TORCHVISION = {
    "fasterrcnn_resnet50_fpn": "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
    "fasterrcnn_resnet50_fpn_v2": "FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1",
    "maskrcnn_resnet50_fpn": "MaskRCNN_ResNet50_FPN_Weights.COCO_V1",
    "maskrcnn_resnet50_fpn_v2": "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1",
}
PUBLISHED = (*TORCHVISION, *ZOO)  # all names
LICENCES = {
    "torchvision": "torchvision is BSD-3-Clause and states no terms of its own for the weights",
    "Detectron2": detectron2_zoo.LICENCE,
}
FOREIGN = (".pth", ".pt", ".pkl")  # suffixes of files of other toolkits, in lower case


@dataclass(frozen=True)
class PublishedDetector:
    """What its publisher says about a detector; AP is on `scored_on`, in 0 .. 1, `megabytes` the size of the file.

    `file` is where it is kept, and where a file that was fetched elsewhere goes: torch's cache.
    """

    name: str
    publisher: str
    box_ap: float | None
    mask_ap: float | None
    url: str
    scored_on: str = SETS["coco"].scored_on
    parameters: int | None = None
    gflops: float | None = None
    megabytes: float | None = None

    @property
    def file(self) -> Path:
        return _torch_cache() / PurePosixPath(urlsplit(self.url).path).name

    @property
    def is_here(self) -> bool:
        return self.file.is_file()

    @property
    def licence(self) -> str:
        return LICENCES[self.publisher]


def _torch_cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def published_detectors() -> list[PublishedDetector]:
    """All of them, by the figures of their publishers."""
    return [published_detector(name) for name in PUBLISHED]


def published_detector(name: str) -> PublishedDetector:
    """Raises UserError for a name that is not known, with a suggestion."""
    if name in ZOO:
        zoo = ZOO[name]
        boxes, masks = (None if ap is None else ap / 100 for ap in (zoo.box_ap, zoo.mask_ap))
        return PublishedDetector(name, "Detectron2", boxes, masks, zoo_address(name), zoo.data_set.scored_on)
    if name not in TORCHVISION:
        raise UserError(f"{name}: is no published detector{suggestion(name) or '; `resdet models` lists them'}")
    from torchvision.models import get_weight

    weights = get_weight(TORCHVISION[name])
    meta: dict[str, Any] = weights.meta
    scores = meta["_metrics"]["COCO-val2017"]
    masks = scores.get("mask_map")
    return PublishedDetector(
        name=name,
        publisher="torchvision",
        box_ap=scores["box_map"] / 100,
        mask_ap=None if masks is None else masks / 100,
        url=weights.url,
        parameters=meta["num_params"],
        gflops=meta["_ops"],
        megabytes=meta["_file_size"] * 2**20 / 1e6,
    )


def suggestion(name: str) -> str | None:
    """`"; did you mean ...?"`, where a name resembles that of a published detector."""
    names = {each.lower(): each for each in PUBLISHED}
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.75)
    return f"; did you mean {names[near[0]]!r}, a published detector (`resdet models`)?" if near else None


def as_model_file(given: Path, cache: Path) -> Path:
    """The converted file of a published detector's name, or of another toolkit's file; the downloaded file of
    hf://OWNER/NAME; any other path as it is.

    A file or folder with such a name comes first. Raises UserError for a file that is not there and cannot be fetched,
    for one that cannot be converted, and for a name that resembles a published one.
    """
    name = str(given)
    if os.path.lexists(given):
        return _from_file(given, cache) if given.suffix.lower() in FOREIGN and given.is_file() else given
    if (on_the_hub := hub_name(name)) is not None:
        return hub_detector(on_the_hub)
    if name in TORCHVISION:
        return _converted(lambda: TORCHVISION[name], "torchvision", cache, published_detector(name).file.stem)
    if name in ZOO:
        known = published_detector(name)
        spec = partial(_fetched, known.url)
        return _converted(spec, "detectron2", cache, known.file.stem, zoo=ZOO[name])
    if (meant := suggestion(name)) is not None:
        raise UserError(f"{name}: no such file or folder{meant}")
    return given


def _from_file(path: Path, cache: Path) -> Path:
    kind = format_of(read_weights(path).state)
    if kind not in ("torchvision", "detectron2"):
        raise UserError(
            f"{path}: is no detector of torchvision or Detectron2 by its names; give a file of resdet, which"
            " `resdet convert-weights` writes"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    stem = f"{path.stem[:80]}-{digest[:16]}"
    return _converted(lambda: str(path), kind, cache, stem, zoo=detector_of_file(path.name))


def _fetched(url: str) -> str:
    return str(fetched(url, _torch_cache()))


def _converted(spec: Callable[[], str], kind: str, cache: Path, stem: str, *, zoo: ZooDetector | None = None) -> Path:
    """The file in the cache, with the classes and the image sizes of a detector of the zoo. Its name has the version,
    for another version may convert in another way.
    """
    target = cache / "detectors" / f"{stem}-resdet-{__version__}.safetensors"
    if not target.is_file():
        with writing(target.parent, "set RESDET_CACHE to a folder with room"):
            target.parent.mkdir(parents=True, exist_ok=True)
        if zoo is None or not zoo.data_set.class_names:
            _ = convert_to_file(spec(), kind, target)
        else:
            sides = zoo.data_set.test_sides
            _ = convert_to_file(spec(), kind, target, class_names=zoo.data, test_sides=sides)
    return target
