"""The formats of an exported graph: a literal table, a row each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resdet.errors import UserError, row_of
from resdet.exporting.graph import Graph, capture
from resdet.exporting.web.site import NAMES
from resdet.text import said_by
from resdet.weights.read import UNREADABLE

if TYPE_CHECKING:
    import onnx  # pyright: ignore[reportMissingImports]

Arrays = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Arrays]  # from the inputs by name to the outputs by name
FP32, FP16, INT8, INT8_DYNAMIC = "fp32", "fp16", "int8", "int8-dynamic"


@dataclass(frozen=True)
class Format:
    """A row: the files that its folder has (the first is the graph), its runtime, and what it can have.

    `packages` are imported to write and to run it; `extra` is the one of resdet that has them. `write` puts the graph
    into a folder, from a captured detector or an ONNX model, and `open` gives a function that runs it.
    """

    files: tuple[str, ...]
    runtime: str
    packages: tuple[str, ...]
    extra: str
    precisions: tuple[str, ...]
    preprocessing: tuple[str, ...]
    through_onnx: bool
    write: Callable[[Any, Path, str], None]
    open: Callable[[Path, Sequence[str], str], Run]


def captured(graph: Graph) -> Any:
    """The detector as torch's exported program."""
    return capture(graph.detector, graph.preparation.divisor)


def onnx_model(graph: Graph) -> onnx.ModelProto:
    """The detector as an ONNX model with the preparation outside. Raises UserError if a part has no form in ONNX."""
    import torch

    from resdet.exporting.onnx_ops import TRANSLATIONS
    from resdet.exporting.onnx_preparation import OPSET

    try:
        program = torch.onnx.export(
            captured(graph),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            input_names=["images", "sizes"],
            output_names=list(graph.output_names),
            optimize=True,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(f"a part of the detector has no form in ONNX ({error}); export it as pt2") from error
    assert program is not None, "an exporter that is given no file returns the program"
    return program.model_proto


@contextmanager
def _readable(path: Path, *refusals: type[Exception]) -> Iterator[None]:
    """Converts what a runtime says about a file that it cannot run into a UserError."""
    try:
        yield
    except refusals as error:
        raise UserError(f"{path}: cannot be run ({said_by(error)}); is it damaged? Export it again") from error


def _write_program(program: Any, folder: Path, precision: str) -> None:
    import torch

    from resdet.exporting.torch_ops import DECOMPOSITIONS

    torch.export.save(program.run_decompositions(DECOMPOSITIONS), folder / "model.pt2")


def _open_program(folder: Path, outputs: Sequence[str], precision: str) -> Run:
    import torch
    import torchvision  # noqa: F401  # registers the operators

    path = folder / "model.pt2"
    with _readable(path, *UNREADABLE):
        module = torch.export.load(path).module(check_guards=False)

    def run(given: Mapping[str, np.ndarray]) -> Arrays:
        # a program has the types with which it was made; those of the caller's autocast do not fit its operators
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            found = module(*(torch.from_numpy(value) for value in given.values()))
        return {name: value.numpy() for name, value in zip(outputs, found, strict=True)}

    return run


def _write_onnx(model: onnx.ModelProto, folder: Path, precision: str) -> None:
    import onnx  # pyright: ignore[reportMissingImports]

    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")


def _open_onnx(folder: Path, outputs: Sequence[str], precision: str) -> Run:
    import onnxruntime  # pyright: ignore[reportMissingImports]
    import torch
    from onnxruntime.capi import onnxruntime_pybind11_state as said  # pyright: ignore

    path = folder / "model.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with _readable(path, said.Fail, said.InvalidArgument, said.InvalidGraph, said.InvalidProtobuf, said.NotImplemented):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(given: Mapping[str, np.ndarray]) -> Arrays:
        return dict(zip(outputs, map(np.asarray, session.run(list(outputs), dict(given))), strict=True))

    return run


def _write_openvino(model: onnx.ModelProto, folder: Path, precision: str) -> None:
    import openvino  # pyright: ignore[reportMissingImports]

    path = folder / "temporary.onnx"  # the reader of models in memory has no such size
    _write_file(model, path)
    try:
        converted = openvino.convert_model(path)
        openvino.save_model(converted, folder / "model.xml", compress_to_fp16=precision == FP16)
    finally:
        path.unlink()


def _write_file(model: onnx.ModelProto, path: Path) -> None:
    import onnx  # pyright: ignore[reportMissingImports]

    onnx.save(model, path)


def _open_openvino(folder: Path, outputs: Sequence[str], precision: str) -> Run:
    return openvino_run(folder / "model.xml", outputs, precision)


def openvino_run(model: Path, outputs: Sequence[str], precision: str) -> Run:
    """Runs a model file of OpenVINO or ONNX by OpenVINO. Raises ModuleNotFoundError where it is not installed."""
    import openvino  # pyright: ignore[reportMissingImports]
    import torch

    hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    if precision == FP32:  # processors with bfloat16 would take that
        hints["INFERENCE_PRECISION_HINT"] = "f32"
    with _readable(model, RuntimeError):
        compiled = openvino.Core().compile_model(model, "CPU", hints)

    def run(given: Mapping[str, np.ndarray]) -> Arrays:
        found = compiled(dict(given))
        return {name: found[compiled.output(name)] for name in outputs}

    return run


FORMATS = {
    "pt2": Format(
        files=("model.pt2",), runtime="torch and torchvision", packages=(), extra="", precisions=(FP32, FP16),
        preprocessing=("outside",), through_onnx=False, write=_write_program, open=_open_program,
    ),
    "onnx": Format(
        files=("model.onnx",), runtime="onnxruntime", packages=("onnx", "onnxscript", "onnxruntime"), extra="export",
        precisions=(FP32, FP16, INT8, INT8_DYNAMIC), preprocessing=("inside", "outside"), through_onnx=True,
        write=_write_onnx, open=_open_onnx,
    ),
    "openvino": Format(
        files=("model.xml", "model.bin"), runtime="openvino",
        packages=("onnx", "onnxscript", "onnxruntime", "openvino"), extra="export,openvino",
        precisions=(FP32, FP16, INT8), preprocessing=("inside", "outside"),
        through_onnx=True, write=_write_openvino, open=_open_openvino,
    ),
}  # fmt: skip
FORMATS["web"] = replace(FORMATS["onnx"], files=("model.onnx", *NAMES), preprocessing=("inside",))


def format_named(name: str, precision: str, preprocessing: str) -> Format:
    """The row of a format. Raises UserError for what it cannot have, and for packages that are not installed."""
    row = row_of(FORMATS, name, "format")
    for option, value, choices in (
        ("precision", precision, row.precisions),
        ("preprocessing", preprocessing, row.preprocessing),
    ):
        if value not in choices:
            raise UserError(f"{option}={value}: {name} has {' and '.join(choices)}; choose one, or another format")
    for package in row.packages:
        try:
            _ = importlib.import_module(package)
        except ModuleNotFoundError:
            raise UserError(f"{package} is not installed; pip install 'resdet[{row.extra}]'") from None
    return row
