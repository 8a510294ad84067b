"""Integer weights for an ONNX model: dynamic (activations measured while it runs) or static (measured beforehand)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx  # pyright: ignore[reportMissingImports]

OPERATORS = ["Conv", "Gemm", "MatMul"]


def quantized(model: onnx.ModelProto, batches: Iterator[Mapping[str, np.ndarray]] | None) -> onnx.ModelProto:
    """Weights of convolutions and products in 8 bits, one scale for each channel.

    With `batches`, inputs of the model by name, activations have 8 bits too, in the range that they have there (static
    quantization); without them only the weights of matrix products have 8 bits, and activations are measured while the
    model runs: ONNX Runtime has no such convolution that is faster than float32.
    """
    import onnx  # pyright: ignore[reportMissingImports]
    from onnxruntime import quantization  # pyright: ignore[reportMissingImports]
    from onnxruntime.quantization.shape_inference import quant_pre_process  # pyright: ignore[reportMissingImports]

    with TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / f"{name}.onnx" for name in ("source", "prepared", "target"))
        onnx.save(model, source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)  # folds constants and normalizations
        if batches is None:
            quantization.quantize_dynamic(
                prepared,
                target,
                op_types_to_quantize=["Gemm", "MatMul"],
                weight_type=quantization.QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        else:
            quantization.quantize_static(
                prepared,
                target,
                _reader(batches),
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        return onnx.load(target)


def _reader(batches: Iterator[Mapping[str, np.ndarray]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader  # pyright: ignore[reportMissingImports]

    class Batches(CalibrationDataReader):
        def get_next(self) -> Any:
            batch = next(batches, None)
            return None if batch is None else dict(batch)

    return Batches()
