"""Finds weights: a file, torchvision's weights by name, or timm's default weights.

Downloads are the libraries' own files in their own caches. Without a network, a one-line error within a second names
the required file and the folder for it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from resdet.downloads import fetched
from resdet.errors import UserError, did_you_mean
from resdet.weights.contract import WeightContract
from resdet.weights.hub import HubName, cached, hub_file

if TYPE_CHECKING:
    from timm.models import PretrainedCfg
    from torchvision.models import WeightsEnum

TIMM_FILES = ("model.safetensors", "pytorch_model.bin")

BOTTLENECK = re.compile(r"resnet(50|101|152)|resnext|wide_resnet")  # only these have a stride whose place can differ
NORMED = re.compile(r"(wide_)?resne(x)?t|vgg\d+_bn")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Source:
    """A file on this machine, and the contract that its publisher states (None: unknown)."""

    path: Path
    contract: WeightContract | None


def resolve(spec: str, architecture: str) -> Source:
    """The file of `spec` for a backbone of this architecture, downloaded if it is not in the cache.

    Args:
        spec: a path; a torchvision name (IMAGENET1K_V1, DEFAULT, ...); or `timm` for a backbone timm/<model>.
        architecture: a backbone's name in a config, resnet50 or timm/convnext_tiny.

    Raises UserError for an unknown name, a missing file, a file whose checksum differs from the published one.
    """
    if _is_path(spec):
        path = Path(spec).expanduser()
        if not path.is_file():
            raise UserError(f"model.backbone.weights={spec}: no such file")
        return Source(path, timm_contract(architecture) if architecture.startswith("timm/") else None)
    if architecture.startswith("timm/"):
        if spec not in ("timm", "DEFAULT"):
            raise UserError(f"model.backbone.weights={spec}: {architecture} takes 'timm' (its own weights) or a file")
        return _timm(architecture)
    return _torchvision(spec, architecture)


def _is_path(spec: str) -> bool:
    return "/" in spec or "\\" in spec or Path(spec).suffix in (".pth", ".pt", ".pkl", ".safetensors", ".bin")


def _torchvision(spec: str, architecture: str) -> Source:
    import torchvision

    try:
        names = torchvision.models.get_model_weights(architecture)
    except ValueError as error:
        raise UserError(
            f"model.backbone.weights={spec}: there are no published weights by name for {architecture}; give a file"
        ) from error
    if spec not in names.__members__:
        raise UserError(
            f"model.backbone.weights={spec} is not known for {architecture}{_meant(spec, names.__members__)}"
        )
    return _published(names[spec], architecture)


def named_weights(name: str) -> Source:
    """The file of torchvision weights by their full name, FasterRCNN_ResNet50_FPN_Weights.COCO_V1.

    A detector's contract has torchvision's list of categories as class names, background and unused ones among them.
    """
    from torchvision.models import get_weight

    try:
        weights = get_weight(name)
    except (ValueError, KeyError) as error:
        raise UserError(f"{name}: torchvision has no weights of this name") from error
    return _published(weights, None)


def _published(weights: WeightsEnum, architecture: str | None) -> Source:
    preset = weights.transforms()  # torchvision normalizes images in 0 .. 1; its detectors do so inside the model
    mean, std = getattr(preset, "mean", IMAGENET_MEAN), getattr(preset, "std", IMAGENET_STD)
    categories = None if hasattr(preset, "mean") else tuple(weights.meta["categories"])
    contract = WeightContract(
        pixel_mean=tuple(255.0 * value for value in mean),  # pyright: ignore[reportArgumentType]
        pixel_std=tuple(255.0 * value for value in std),  # pyright: ignore[reportArgumentType]
        stride_in_1x1=False if BOTTLENECK.match(architecture or "") else None,
        bn_eps=1e-5 if NORMED.match(architecture or "") else None,
        class_names=categories,
        architecture=architecture,
        source=f"torchvision {weights}",
    )
    return Source(fetched(weights.url, Path(torch.hub.get_dir()) / "checkpoints"), contract)


def coco_names() -> list[str]:
    """COCO's 90 category ids in their order, "N/A" for the ten that no object has."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    return list(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:])


IMAGENET_CLASSES = 1000


def imagenet_synsets() -> tuple[str, ...]:
    """The synsets of ImageNet's 1000 classes in the order of all published classifiers, which is sorted."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def _meant(spec: str, names: Iterable[str]) -> str:
    return did_you_mean(spec.rpartition(".")[2], names) + "; or a path to a file"


def _timm(architecture: str) -> Source:
    published, contract = _timm_configuration(architecture), timm_contract(architecture)
    if published.hf_hub_id:
        return Source(_from_hugging_face(published.hf_hub_id, published.hf_hub_filename), contract)
    if isinstance(published.url, str) and published.url:
        return Source(fetched(published.url, Path(torch.hub.get_dir()) / "checkpoints"), contract)
    raise UserError(f"model.backbone.weights=timm: nobody has published weights of {architecture}; give a file")


def timm_contract(architecture: str) -> WeightContract:
    """timm's own statement of how the images of timm/<model> are normalized."""
    published = _timm_configuration(architecture)
    return WeightContract(
        pixel_mean=tuple(255.0 * value for value in published.mean),  # pyright: ignore[reportArgumentType]
        pixel_std=tuple(255.0 * value for value in published.std),  # pyright: ignore[reportArgumentType]
        architecture=architecture,
        source=f"timm {published.hf_hub_id or architecture.removeprefix('timm/')}",
    )


def _timm_configuration(architecture: str) -> PretrainedCfg:
    import timm

    name = architecture.removeprefix("timm/")
    known = timm.is_model(name.partition(".")[0])
    published = timm.get_pretrained_cfg(name) if known else None
    if published is None:
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=1)
        raise UserError(
            f"{architecture}: timm has no such model or tag{f'; did you mean {near[0]!r}?' if near else ''}"
        )
    return published


def _from_hugging_face(repository: str, filename: str | None) -> Path:
    """Published weights do not change, so those in the cache are taken without a question."""
    name, files = HubName(repository), (filename,) if filename else TIMM_FILES
    remedy = f"fetch {name.address(files[0])} and give its path as model.backbone.weights"
    return cached(name, files) or hub_file(name, files, remedy=remedy)
