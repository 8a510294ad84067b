"""Runs an exported detector: its folder, or a graph before its folder is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import nn

from resdet.data.batches.collate import ImageInfo, Sample, boxes_in_original, collate, padded_shape
from resdet.data.images.decode import resize, resized_size
from resdet.errors import UserError
from resdet.exporting.contract import CONTRACT, LARGEST, Contract, read_contract
from resdet.exporting.formats import FORMATS, Format, Run
from resdet.exporting.preparation import Preparation
from resdet.structures import Batch, Detections
from resdet.weights.hub import HubName, hub_file, hub_name


@dataclass(frozen=True)
class Found:
    """The detections in one image, best first: boxes in its pixels; masks in the frames of their boxes."""

    boxes: Float32[np.ndarray, "n 4"]
    scores: Float32[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    masks: Float32[np.ndarray, "n M M"] | None


class ExportedDetector:
    """A detector in a folder that `resdet export` wrote, or hf://OWNER/NAME.

    Raises UserError for another folder, a graph that is damaged and a missing runtime.
    """

    def __init__(self, folder: str | Path) -> None:
        on_the_hub = None if Path(folder).exists() else hub_name(folder)
        self.folder = Path(folder) if on_the_hub is None else _from_hub(on_the_hub)
        self.contract = read_contract(self.folder)
        row = _row_of(self.contract)
        if row is None or not (self.folder / self.contract.file).is_file():
            raise UserError(f"{self.folder}: has no graph {self.contract.file!r} that this version can run")
        try:
            self._run = row.open(self.folder, [port.name for port in self.contract.outputs], self.contract.precision)
        except ModuleNotFoundError as error:
            raise UserError(f"{error.name} is not installed; pip install 'resdet[{row.extra}]'") from None

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Found:
        """The detections in an RGB image."""
        return detect(self._run, self.contract, image)


def _row_of(contract: Contract) -> Format | None:
    return next((row for row in FORMATS.values() if contract.file == row.files[0]), None)


def _from_hub(name: HubName) -> Path:
    """The folder of an export in the Hub's cache. A program of torch is not fetched, for its reader may run code."""
    remedy = "fetch the repository yourself, if you trust it, and give the folder"
    described = hub_file(name, [CONTRACT], remedy=remedy, largest=LARGEST).parent
    contract = read_contract(described)
    row = _row_of(contract)
    if row is None or not row.through_onnx:
        raise UserError(f"{name}: its graph {contract.file!r} is not taken from the Hub; {remedy}")
    commit = HubName(name.repository, described.name)  # the folder of a commit has its name
    for file in row.files:
        _ = hub_file(commit, [file], remedy=remedy)
    return described


def detect(run: Run, contract: Contract, image: UInt8[np.ndarray, "H W 3"]) -> Found:
    """The detections in an RGB image; where the graph does not prepare it, it is prepared as by a `Predictor`."""
    preparation = Preparation(contract.short_side, contract.max_side, contract.divisor)
    given, info = inputs_of(image, preparation, contract.preprocessing)
    found = run(given)
    valid: Bool[np.ndarray, " D"] = found["valid"][0]
    boxes = found["boxes"][0]
    if info is not None:
        boxes = boxes_in_original(torch.from_numpy(boxes), info)
    labels = found["labels"][0][valid].astype(np.int64)  # ONNX Runtime has a long of its own
    masks = found["masks"][0][valid] if "masks" in found else None
    return Found(boxes[valid], found["scores"][0][valid], labels, masks)


def inputs_of(
    image: UInt8[np.ndarray, "H W 3"], preparation: Preparation, preprocessing: str
) -> tuple[Mapping[str, np.ndarray], ImageInfo | None]:
    """The inputs of a graph for one image, and its resizing where it happens outside."""
    if preprocessing == "inside":
        return {"images": np.ascontiguousarray(image[None])}, None
    height, width = image.shape[:2]
    size = resized_size(height, width, preparation.short_side, preparation.max_side)
    info = ImageInfo(0, "", height, width, scale_y=size[0] / height, scale_x=size[1] / width)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    sample = Sample(resize(image, size), *nothing, seed=0, info=info)
    batch = collate([sample], shape=padded_shape([size], preparation.divisor), slots=0).batch
    return {"images": batch.images.numpy(), "sizes": batch.sizes.numpy()}, info


class GraphDetector(nn.Module):
    """A graph with the preparation outside as a model: its `predict` is what the evaluation calls."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # an evaluation asks for a model's device

    def predict(self, batch: Batch) -> Detections:
        """Detections in pixels of the padded input."""
        images, sizes = batch.images.contiguous(), batch.sizes
        found = self.run({"images": images.cpu().numpy(), "sizes": sizes.cpu().numpy()})
        return Detections(**{name: torch.from_numpy(np.array(value)) for name, value in found.items()})
