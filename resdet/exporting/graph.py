"""The modules that are exported: a detector whose inputs and outputs are plain tensors."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from resdet.errors import UserError
from resdet.exporting.preparation import Preparation
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.roi_pooler import RoIPooler
from resdet.ops.roi_align import roi_align
from resdet.ops.roi_kernels import kernel_roi_align
from resdet.structures import Batch, Detections

OUTPUTS = ("boxes", "scores", "labels", "valid", "masks")
INPUTS = {"inside": ("images",), "outside": ("images", "sizes")}
MOST_IMAGES = 1024
EXAMPLE = (256, 320)  # pixels: with several cells in every map, because a side of one cell would become a constant
LARGEST_SIDE = 16384  # pixels of an image, as the reader of image files


class FromImages(nn.Module):
    """Preparation inside the graph: images (N, H, W, 3) uint8 of one size; boxes in their pixels."""

    def __init__(self, detector: RCNN, preparation: Preparation) -> None:
        super().__init__()
        self.detector = detector
        self.preparation = preparation

    def forward(self, images: UInt8[Tensor, "N H W 3"]) -> tuple[Tensor, ...]:
        found = self.detector.predict(self.preparation.batch(images))
        return outputs(found, self.preparation.in_given(found.boxes, images))


class FromBatch(nn.Module):
    """Preparation outside: a padded batch (N, 3, H, W) uint8 and its sizes; boxes in pixels of the batch."""

    def __init__(self, detector: RCNN) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: UInt8[Tensor, "N 3 H W"], sizes: Int64[Tensor, "N 2"]) -> tuple[Tensor, ...]:
        found = self.detector.predict(Batch(images, sizes))
        return outputs(found, found.boxes)


def outputs(found: Detections, boxes: Tensor) -> tuple[Tensor, ...]:
    """The tensors of `OUTPUTS`; masks are left out of a detector without them."""
    tensors = (boxes, found.scores, found.labels, found.valid)
    return tensors if found.masks is None else (*tensors, found.masks)


class InHalf(nn.Module):
    """Layers in float16, which take and give any floats."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers.half()

    def forward(self, images: Tensor) -> Any:
        return self.layers(images.half())


@dataclass(frozen=True)
class Graph:
    """What is exported: `detector`, in its precision. The exported graph is compared with `module`, in float32."""

    detector: RCNN
    module: FromImages | FromBatch
    preparation: Preparation

    @property
    def preprocessing(self) -> str:
        return "inside" if isinstance(self.module, FromImages) else "outside"

    @property
    def input_names(self) -> tuple[str, ...]:
        return INPUTS[self.preprocessing]

    @property
    def output_names(self) -> tuple[str, ...]:
        heads = self.detector.roi_heads
        return OUTPUTS if heads is not None and heads.mask_head is not None else OUTPUTS[:-1]


def graph_of(detector: nn.Module, preparation: Preparation, *, preprocessing: str, half: bool = False) -> Graph:
    """The graph of a trained detector, whose regions are pooled by kernels, and in float16 with `half`.

    Raises UserError for a detector with parts of `config.test` around it, which no graph has.
    """
    if not isinstance(detector, RCNN):
        raise UserError("an ensemble and the parts of `test` are not exported; leave them out")
    own = copy.deepcopy(detector).to("cpu", memory_format=torch.contiguous_format).eval()  # pyright: ignore
    for module in own.modules():
        if isinstance(module, RoIPooler) and isinstance(module.pooling, partial) and module.pooling.func is roi_align:
            module.pooling = partial(
                kernel_roi_align, **{"sampling_ratio": 2, "aligned": True} | module.pooling.keywords
            )
        _ = module.requires_grad_(requires_grad=False)
    reference = FromImages(own, preparation) if preprocessing == "inside" else FromBatch(own)
    return Graph(_halved(own) if half else own, reference, preparation)


def _halved(detector: RCNN) -> RCNN:
    """A copy with all weights in float16; boxes, scores and their arithmetic stay in float32."""
    detector = copy.deepcopy(detector)
    detector.backbone = InHalf(detector.backbone)  # pyright: ignore[reportAttributeAccessIssue]
    _ = detector.neck.half()
    _ = detector.rpn.head.half()
    if detector.roi_heads is not None:
        _ = detector.roi_heads.half()
    return detector


def capture(detector: RCNN, divisor: int) -> ExportedProgram:
    """The graph of `FromBatch` for any number of images, whose sides are any multiples of the divisor."""
    high, wide = (-(-side // divisor) * divisor for side in EXAMPLE)
    given = torch.zeros(2, 3, high, wide, dtype=torch.uint8), torch.tensor([[high, wide], [high - 3, wide - 5]])
    count = Dim("images", min=1, max=MOST_IMAGES)
    rows, columns = (Dim(name, min=1, max=LARGEST_SIDE // divisor) for name in ("rows", "columns"))
    shapes = {"images": {0: count, 2: divisor * rows, 3: divisor * columns}, "sizes": {0: count}}
    with torch.no_grad(), warnings.catch_warnings(action="ignore", category=FutureWarning):  # torchvision's own
        return torch.export.export(FromBatch(detector), given, dynamic_shapes=shapes)
