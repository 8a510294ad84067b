"""The conventions of the numbers in a weights file: normalization, channel order, stride, epsilon, classes, origin.

With another mean, channel order or stride the same tensors raise no error, but lose 10 AP or more. Every file therefore
declares a `WeightContract`, stored in the header of a safetensors file as one JSON text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import msgspec
from torch import Tensor

from resdet.errors import UserError

METADATA_KEY = "weight_contract"
STEMS = ("backbone.conv1.weight", "conv1.weight", "backbone.features.0.weight", "features.0.weight")

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class WeightContract:
    """The conventions under which weights were trained.

    `pixel_mean` and `pixel_std` are always written in the order R, G, B and in pixel units (0 .. `scale`), independent
    of `channel_order`; `channel_order` is the order in which the first convolution of *these tensors* reads an image. A
    field that does not apply or is not known is None.
    """

    pixel_mean: Triple
    pixel_std: Triple
    scale: float = 255.0  # white, in the units of pixel_mean
    channel_order: Literal["RGB", "BGR"] = "RGB"
    stride_in_1x1: bool | None = None  # of a bottleneck: True in the first 1x1 (MSRA), False in the 3x3 (torchvision)
    bn_eps: float | None = None
    class_names: tuple[str, ...] | None = None
    architecture: str | None = None
    source: str = ""
    anchors_rounded: bool | None = None  # detectors: corners of the cell anchors rounded to whole pixels
    roi_align_aligned: bool | None = None  # detectors: half-pixel correction of RoIAlign
    # detectors: RoIAlign's samples per side of a bin; 0: the width of the bin in cells
    roi_sampling_ratio: int | None = None

    def __post_init__(self) -> None:
        numbers = (*self.pixel_mean, *self.pixel_std, self.scale, self.bn_eps or 0.0)
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("every number of a weight contract must be finite")
        if min(*self.pixel_std, self.scale) <= 0 or (self.bn_eps is not None and self.bn_eps <= 0):
            raise ValueError("pixel_std, scale and bn_eps of a weight contract must be positive")

    def to_metadata(self) -> dict[str, str]:
        """The header of a safetensors file, which can contain only strings."""
        present = {name: value for name, value in asdict(self).items() if value is not None}
        return {"format": "pt", METADATA_KEY: msgspec.json.encode(present).decode()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], file: str) -> WeightContract | None:
        """The contract in a file's header; None if the header has none; UserError if it is not a valid contract."""
        if METADATA_KEY not in metadata:
            return None
        try:
            return msgspec.json.decode(metadata[METADATA_KEY], type=cls).in_pixels()
        except msgspec.DecodeError as error:
            raise UserError(f"{file}: the weight contract in its header is not valid: {error}") from error

    def in_pixels(self) -> WeightContract:
        """The same contract for pixels in 0 .. 255."""
        factor = 255.0 / self.scale
        mean, std = (_triple([value * factor for value in values]) for values in (self.pixel_mean, self.pixel_std))
        return replace(self, pixel_mean=mean, pixel_std=std, scale=255.0)

    def of_backbone(self) -> WeightContract:
        """The contract without the fields that concern only detectors."""
        return replace(self, class_names=None, anchors_rounded=None, roi_align_aligned=None, roi_sampling_ratio=None)

    def line(self) -> str:
        """The contract as one line for a log."""
        stride = {True: "stride in the 1x1", False: "stride in the 3x3", None: "no stride placement"}[
            self.stride_in_1x1
        ]
        classes = "no classes" if self.class_names is None else f"{len(self.class_names)} classes"
        pixels = f"mean {_text(self.pixel_mean)}, std {_text(self.pixel_std)} (R, G, B of 0..{self.scale:g})"
        architecture = self.architecture or "architecture not named"
        rest = f"{stride}, bn_eps {self.bn_eps}, {classes}, {architecture}, from {self.source}"
        return f"{self.channel_order}, {pixels}, {rest}"


def conflicts(
    contract: WeightContract,
    *,
    pixel_mean: Sequence[float] | None = None,
    pixel_std: Sequence[float] | None = None,
    stride_in_1x1: bool | None = None,
    bn_eps: float | None = None,
    class_names: Sequence[str] | None = None,
    anchors_rounded: bool | None = None,
    roi_align_aligned: bool | None = None,
    roi_sampling_ratio: int | None = None,
) -> list[str]:
    """The differences between the model's conventions and the weights' conventions, each with both values.

    Values and fields of the contract that are None are not compared. Class names are compared only if their numbers are
    equal, because another number of classes needs another head.
    """
    found = []
    for name, ours in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
        theirs: Triple = getattr(contract, name)
        if ours is not None and not _close(theirs, ours):
            found.append(f"{name}: the weights have {_text(theirs)} (R, G, B), the model {_text(ours)}")
    for name, ours in (
        ("stride_in_1x1", stride_in_1x1),
        ("bn_eps", bn_eps),
        ("anchors_rounded", anchors_rounded),
        ("roi_align_aligned", roi_align_aligned),
        ("roi_sampling_ratio", roi_sampling_ratio),
    ):
        theirs = getattr(contract, name)
        if ours is not None and theirs is not None and theirs != ours:
            found.append(f"{name}: the weights have {theirs}, the model {ours}")
    if class_names is not None and contract.class_names is not None:
        pairs = enumerate(zip(contract.class_names, class_names, strict=False))
        if len(class_names) == len(contract.class_names):
            found += [f"class {i}: the weights have {a!r}, the model {b!r}" for i, (a, b) in pairs if a != b][:3]
    return found


def to_rgb(
    state: dict[str, Tensor], contract: WeightContract
) -> tuple[dict[str, Tensor], WeightContract, tuple[str, ...]]:
    """The same function for RGB images: a BGR file's first convolution has its input channels reversed.

    Returns the tensors, the contract they now keep, and notes about the changes for the report.
    """
    if contract.channel_order == "RGB":
        return state, contract, ()
    stem = _stem(state)
    flipped = state | {stem: state[stem].flip(1)}
    return (
        flipped,
        replace(contract, channel_order="RGB"),
        (f"BGR weights: the input channels of {stem} were reversed",),
    )


def _stem(state: Mapping[str, Tensor]) -> str:
    convolutions = [name for name, value in state.items() if value.ndim == 4 and value.shape[1] == 3]
    named = [name for name in STEMS if name in convolutions] or convolutions
    if not named or (len(convolutions) > 1 and named is convolutions):
        raise UserError(f"BGR weights need one first convolution over 3 channels; found {convolutions[:5] or 'none'}")
    return named[0]


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two numbers are equal within the precision of three decimals (0.485 * 255 is 123.675)."""
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-4, abs_tol=1e-3) for x, y in zip(a, b, strict=True))


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = values
    return (float(red), float(green), float(blue))


def _text(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
