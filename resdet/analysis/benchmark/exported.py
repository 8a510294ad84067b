"""Times an exported detector in the runtimes that can run it, beside the model that it was made of."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from resdet.analysis.benchmark.timing import alternate
from resdet.engine.machine import check_compiler
from resdet.engine.saved_models import detector_of, read_models
from resdet.errors import UserError
from resdet.exporting.contract import CONTRACT, Contract, read_contract
from resdet.exporting.formats import FORMATS, Run, openvino_run
from resdet.exporting.preparation import Preparation
from resdet.exporting.runtime import inputs_of
from resdet.models.rcnn import RCNN
from resdet.structures import Batch

MODELS = (".onnx", ".xml", ".pt2")
Open = Callable[[Path, Sequence[str], str], Run]
Images = UInt8[np.ndarray, "N H W 3"]
Call = Callable[[Images], None]


def _onnx_by_openvino(folder: Path, outputs: Sequence[str], precision: str) -> Run:
    return openvino_run(folder / FORMATS["onnx"].files[0], outputs, precision)


OPENERS: dict[str, dict[str, Open]] = {  # by the graph's file, the runtimes that read it
    "model.onnx": {"ONNX Runtime": FORMATS["onnx"].open, "OpenVINO": _onnx_by_openvino},
    "model.xml": {"OpenVINO": FORMATS["openvino"].open},
    "model.pt2": {"exported program": FORMATS["pt2"].open},
}
EXTRAS = {"ONNX Runtime": "export", "OpenVINO": "openvino"}


@dataclass(frozen=True)
class Latency:
    """The seconds of the calls of a contestant, each with a batch of images."""

    seconds: Sequence[float]
    batch: int

    @property
    def p50(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        return float(np.percentile(self.seconds, 99))

    @property
    def throughput(self) -> float:
        """Images a second."""
        return self.batch * len(self.seconds) / sum(self.seconds)


@dataclass(frozen=True)
class Measured:
    """The latencies by contestant, and why others are missing."""

    latencies: dict[str, Latency]
    remarks: tuple[str, ...]
    contract: Contract

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as fast as the first contestant each is: the median over the turns, which other load on the
        machine disturbs less than the latencies.
        """
        first = next(iter(self.latencies.values())).seconds
        return {
            name: statistics.median(theirs / ours for theirs, ours in zip(first, latency.seconds, strict=True))
            for name, latency in self.latencies.items()
        }

    def to_json(self) -> dict[str, Any]:
        figures = {
            f"{name}/{figure}": getattr(latency, figure)
            for name, latency in self.latencies.items()
            for figure in ("p50", "p99", "throughput")
        }
        ratios = {f"{name}/ratio": ratio for name, ratio in self.ratios.items()}
        return {
            **figures,
            **ratios,
            "file": self.contract.file,
            "precision": self.contract.precision,
            "missing": self.remarks,
        }


def is_exported(given: Path) -> bool:
    """Whether a path is that of an exported folder, or of the graph in one."""
    return (given.is_dir() and (given / CONTRACT).exists()) or given.suffix in MODELS


def benchmark_exported(given: Path, *, size: tuple[int, int], batch: int, rounds: int) -> Measured:
    """Times the graph in each runtime that reads it, and its model, eager and compiled, on the CPU.

    A call goes from images in memory, uint8 of `size` (height, width), to arrays of detections; it contains the
    resizing. All run in turns on the same images, after one call each that is not counted, with torch's number of
    threads. Raises UserError for a path that is not of an export.
    """
    folder = given if given.is_dir() else given.parent
    contract = read_contract(folder)
    contestants: dict[str, Call] = {}
    remarks: list[str] = []
    for add in (_add_model, _add_runtimes):
        add(folder, contract, contestants, remarks)
    if not contestants:
        raise UserError(f"{folder}: nothing here can run it: {'; '.join(remarks)}")
    images = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
    seconds = alternate([(call, (images,)) for call in contestants.values()], rounds, torch.device("cpu"))
    latencies = {name: Latency(each, batch) for name, each in zip(contestants, seconds, strict=True)}
    return Measured(latencies, tuple(remarks), contract)


def _add_model(folder: Path, contract: Contract, contestants: dict[str, Call], remarks: list[str]) -> None:
    """The model that the graph was made of, eager and compiled, if its file is there."""
    try:
        (model,) = read_models([Path(contract.source)], ["train.device=cpu"], best=True)
        detector = detector_of([model], torch.device("cpu"))
    except UserError as error:
        remarks.append(f"eager and compiled: the model is not there ({error})")
        return
    assert isinstance(detector, RCNN), "no other is exported"
    predict = detector.predict

    def call(images: Images, forward: Callable[[Batch], Any]) -> None:
        given = _inputs(images, contract, preprocessing="outside")
        with torch.no_grad():
            _ = forward(Batch(torch.from_numpy(given["images"]), torch.from_numpy(given["sizes"])))

    contestants["eager"] = partial(call, forward=predict)
    try:
        check_compiler("test.compile")
    except UserError as error:
        remarks.append(f"compiled: {error}")
    else:
        contestants["compiled"] = partial(call, forward=torch.compile(predict))


def _add_runtimes(folder: Path, contract: Contract, contestants: dict[str, Call], remarks: list[str]) -> None:
    """The graph in each runtime that reads its file, if that is installed."""
    outputs = [port.name for port in contract.outputs]
    openers = OPENERS.get(contract.file, {})
    for name, opened in openers.items():
        try:
            run = opened(folder, outputs, contract.precision)
        except ModuleNotFoundError as error:
            remarks.append(f"{name}: {error.name} is not installed; pip install 'resdet[{EXTRAS[name]}]'")
        else:
            contestants[name] = partial(_call, run, contract)
    if "ONNX Runtime" not in openers:
        remarks.append(f"ONNX Runtime: it does not read {contract.file}; export with --format onnx")


def _call(run: Run, contract: Contract, images: Images) -> None:
    _ = run(_inputs(images, contract, preprocessing=contract.preprocessing))


def _inputs(images: Images, contract: Contract, *, preprocessing: str) -> Mapping[str, np.ndarray]:
    """The inputs of a graph for images of one size."""
    if preprocessing == "inside":
        return {"images": images}
    preparation = Preparation(contract.short_side, contract.max_side, contract.divisor)
    each = [inputs_of(image, preparation, preprocessing)[0] for image in images]
    return {name: np.concatenate([one[name] for one in each]) for name in each[0]}
