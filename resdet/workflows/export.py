"""Exports as `resdet export` does: a folder with the graph, its contract, an example and a model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from resdet.config import Config
from resdet.data.batches.collate import size_divisor
from resdet.data.batches.loader import evaluation_batches, open_split
from resdet.engine.saved_models import SavedModel, detector_of, read_models
from resdet.errors import UserError
from resdet.exporting.card import CARD, card
from resdet.exporting.checks import Parity, ValFigures, cost, parity, val_images
from resdet.exporting.contract import CLASS_NAMES, CONTRACT, VERSION, Contract, ports, read_contract
from resdet.exporting.example import example
from resdet.exporting.formats import (
    FORMATS,
    FP16,
    FP32,
    INT8,
    INT8_DYNAMIC,
    Format,
    captured,
    format_named,
    onnx_model,
)
from resdet.exporting.graph import Graph, graph_of
from resdet.exporting.preparation import Preparation
from resdet.exporting.runtime import ExportedDetector
from resdet.exporting.web.site import page_files
from resdet.files import readable_json, usable_paths, whole_folder
from resdet.models.rcnn import RCNN
from resdet.version import __version__

CALIBRATION_IMAGES = 100
EXAMPLE = "example.py"


@dataclass(frozen=True)
class Exported:
    """An exported detector: its folder and the graph in it, how far the graph is from the model, and what it costs.

    `cost` is None unless it was measured; `remarks` say what could not be checked.
    """

    folder: Path
    file: Path
    parity: Parity
    cost: ValFigures | None = None
    remarks: tuple[str, ...] = ()

    def load(self) -> ExportedDetector:
        """The detector in its runtime."""
        return ExportedDetector(self.folder)


@usable_paths()
def export(
    checkpoint: str | Path,
    output: str | Path,
    *,
    format: str = "onnx",
    precision: str = FP32,
    preprocessing: str | None = None,
    overrides: Sequence[str] = (),
    measure: bool = False,
    runtime: str | Path | None = None,
) -> Exported:
    """Writes a trained detector, boxes and masks, into the folder `output`, for any number and size of images.

    `checkpoint` is that of `resdet.load`. `format` is "onnx", "openvino", "pt2" (torch's exported program) or "web": an
    ONNX model with a static page that runs it in the browser, whose runtime comes from npm or from `runtime`, a local
    copy of onnxruntime-web (see `runtime_files`).
    `precision` is "fp32"; "fp16", weights and maps of half precision; "int8-dynamic", matrix products; or "int8", which
    also measures the range of activations on 100 training images. `preprocessing` is "inside" the graph, which then
    takes images of any size, or "outside"; None is inside where the format has it. The graph is compared with the model
    on 20 images of the val set, and with `measure` the AP of both on all of it. An earlier export is replaced.

    Raises UserError for a damaged checkpoint, for a format that lacks the wish or a part of the detector, and for a
    package or a runtime of the page that is not there.
    """
    if preprocessing is None:
        preprocessing = "outside" if format == "pt2" else "inside"
    row = format_named(format, precision, preprocessing)
    if runtime is not None and format != "web":
        raise UserError(f"runtime={runtime}: it is that of a page; leave it out, or export with format=web")
    page = page_files(None if runtime is None else Path(runtime)) if format == "web" else {}
    (model,) = read_models([Path(checkpoint)], ["train.device=cpu", *overrides], best=True)
    config = model.saved.config
    detector = detector_of([model], _cpu())
    augment = config.data.augment
    preparation = Preparation(augment.test_short_side, augment.max_side, size_divisor(config.model))
    graph = graph_of(
        detector, preparation, preprocessing=preprocessing, half=precision == FP16 and format != "openvino"
    )
    assert isinstance(detector, RCNN), "graph_of takes no other"
    contract = _contract(graph, model, row, precision)
    folder = Path(output)
    with whole_folder(folder, replaces=is_export) as temporary:
        dataset, images = val_images(config)
        remarks = () if dataset is not None else ("the val set is not there: checked on generated images",)
        inner = _precise(graph, row, precision, config)
        price = None
        if measure and dataset is not None:
            row.write(inner, temporary, precision)
            run = row.open(temporary, graph.output_names, precision)
            price = cost(detector, run, dataset, contract.class_names, config)
        row.write(_with_preparation(inner, graph), temporary, precision)
        run = row.open(temporary, graph.output_names, precision)
        measured = parity(graph, run, images)
        contents = {
            CONTRACT: contract.to_json(),
            CLASS_NAMES: readable_json(contract.class_names),
            EXAMPLE: example(contract).encode(),
            CARD: card(contract, config, measured, price).encode(),
            **page,
        }
        for name, data in contents.items():
            _ = (temporary / name).write_bytes(data)
    return Exported(folder, folder / contract.file, measured, price, remarks)


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


def _precise(graph: Graph, row: Format, precision: str, config: Config) -> Any:
    """The graph with the preparation outside, in its precision, in the form that the row writes."""
    if not row.through_onnx:
        return captured(graph)
    model = onnx_model(graph)
    if precision in (INT8, INT8_DYNAMIC):
        from resdet.exporting.quantized import quantized

        return quantized(model, _calibration(config) if precision == INT8 else None)
    return model


def _with_preparation(model: Any, graph: Graph) -> Any:
    if graph.preprocessing == "outside":
        return model
    from resdet.exporting.onnx_preparation import with_preparation

    return with_preparation(model, graph.preparation)


def _calibration(config: Config) -> Iterator[Mapping[str, np.ndarray]]:
    """Training images, prepared as in an evaluation, one by one. Raises UserError if there are none."""
    try:
        dataset = open_split(config.data, "train")
    except UserError as error:
        raise UserError(f"precision=int8 measures ranges on training images: {error}") from None
    chosen = np.unique(np.linspace(0, len(dataset) - 1, CALIBRATION_IMAGES).round().astype(int))
    batches = evaluation_batches(dataset.take(chosen), config, rank=0, world_size=1)
    return (
        {"images": loaded.batch.images.numpy(), "sizes": loaded.batch.sizes.numpy()}
        for loaded in islice(batches, CALIBRATION_IMAGES)
    )


def _contract(graph: Graph, model: SavedModel, row: Format, precision: str) -> Contract:
    import torch

    given = (torch.zeros(1, 64, 64, 3, dtype=torch.uint8),)
    if graph.preprocessing == "outside":
        given = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.tensor([[64, 64]])
    with torch.no_grad():
        shapes = [value.shape for value in graph.module(*given)]
    inputs, outputs = ports(graph.preprocessing, shapes[0][1], shapes[4][2] if len(shapes) > 4 else None)
    return Contract(
        format=VERSION,
        file=row.files[0],
        runtime=row.runtime,
        precision=precision,
        preprocessing=graph.preprocessing,
        inputs=inputs,
        outputs=outputs,
        class_names=model.saved.class_names,
        category_ids=model.saved.category_ids,
        short_side=graph.preparation.short_side,
        max_side=graph.preparation.max_side,
        divisor=graph.preparation.divisor,
        source=str(model.file),
        step=model.saved.step,
        resdet_version=__version__,
    )


def is_export(folder: Path) -> bool:
    """Whether a folder holds an export and nothing else."""
    try:
        contract = read_contract(folder)
    except UserError:
        return False
    files = (row.files for row in FORMATS.values() if row.files[0] == contract.file)
    ours = {CONTRACT, CLASS_NAMES, EXAMPLE, CARD}.union(*files)
    return {path.name for path in folder.iterdir()} <= ours
