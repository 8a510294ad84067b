"""Detectors with random weights, and exports of them in a process of their own."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import torch

from resdet.config import load_config
from resdet.engine.checkpoint import model_metadata, save_checkpoint
from resdet.exporting.contract import CONTRACT, VERSION, Contract, ports
from resdet.models.build.detector import build_model
from resdet.workflows.export import Exported

HOSTILE_NAMES = ("circle", "猫", "# [x](javascript:1)\x1b[31m")
# In a process of its own, without the type-checking import hook, which does not know torch's symbols of sizes.
EXPORT = """
import json, pickle, sys, resdet
from resdet.exporting.web import runtime_files
runtime_files.SHA256 |= json.loads(sys.argv[4])
done = resdet.export(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
sys.stdout.buffer.write(pickle.dumps(done))
"""


def save_model(folder: Path, *overrides: str) -> Path:
    """Random weights, which find something everywhere."""
    config = load_config("nano", overrides=["data.shapes.val_images=20", *overrides])
    _ = torch.manual_seed(0)
    model = build_model(config.model, len(HOSTILE_NAMES))
    metadata = model_metadata(config, HOSTILE_NAMES, (5, 17, 90), model.normalization)
    return save_checkpoint(folder, step=3, weights=model.state_dict(), metadata=metadata, state={})


def without_a_graph(folder: Path) -> Path:
    """An export whose graph is none, and whose model is not there."""
    inputs, outputs = ports("inside", 20, None)
    contract = Contract(
        format=VERSION, file="model.onnx", runtime="onnxruntime", precision="fp32", preprocessing="inside",
        inputs=inputs, outputs=outputs, class_names=("a",), category_ids=(1,), short_side=64, max_side=64, divisor=32,
        source=str(folder / "none.safetensors"), step=1, resdet_version="0",
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    _ = (folder / CONTRACT).write_bytes(contract.to_json())
    _ = (folder / "model.onnx").write_bytes(b"no graph")
    return folder


def in_a_process(
    checkpoint: Path, output: Path, *, sha256: dict[str, str] | None = None, **options: object
) -> Exported:
    """`resdet.export`; `sha256` replaces those of the page's runtime."""
    given = [str(checkpoint), str(output), json.dumps(options), json.dumps(sha256 or {})]
    done = subprocess.run([sys.executable, "-c", EXPORT, *given], stdout=subprocess.PIPE, check=True)
    return pickle.loads(done.stdout)
