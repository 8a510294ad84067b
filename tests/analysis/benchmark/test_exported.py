"""`resdet benchmark` of an exported detector: what runs, what is missing, and what its figures mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exports import save_model, without_a_graph
from resdet.analysis.benchmark import exported as benchmark
from resdet.analysis.benchmark.exported import Latency, Measured, benchmark_exported, is_exported
from resdet.cli.main import main
from resdet.errors import UserError
from resdet.exporting.contract import CONTRACT, read_contract


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return without_a_graph(tmp_path)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, np.ndarray]]:
    """One runtime that takes what it is given, and one that is not installed."""
    given: list[Mapping[str, np.ndarray]] = []

    def opened(folder: Path, outputs: object, precision: str) -> object:
        return lambda inputs: given.append(inputs) or {}

    def absent(folder: Path, outputs: object, precision: str) -> object:
        raise ModuleNotFoundError(name="openvino")

    monkeypatch.setattr(benchmark, "OPENERS", {"model.onnx": {"ONNX Runtime": opened, "OpenVINO": absent}})
    return given


def test_latencies_from_a_pencil() -> None:
    """100 calls of 1 to 100 ms with two images each: 200 images in 5.05 s."""
    latency = Latency([0.001 * call for call in range(1, 101)], 2)
    assert latency.p50 == pytest.approx(0.0505)
    assert latency.p99 == pytest.approx(0.09901)
    assert latency.throughput == pytest.approx(200 / 5.05)


def test_ratios_are_those_of_turns_and_not_of_the_whole(folder: Path) -> None:
    """In each turn the second is twice as fast, though the machine was ten times slower in the last one."""
    first, second = Latency([1.0, 1.2, 10.0], 1), Latency([0.5, 0.6, 5.0], 1)
    measured = Measured({"eager": first, "ONNX Runtime": second}, (), read_contract(folder))
    assert measured.ratios == {"eager": 1.0, "ONNX Runtime": 2.0}
    assert measured.to_json()["ONNX Runtime/ratio"] == 2.0


def test_without_a_compiler_the_compiled_model_is_missing(
    folder: Path, runtime: list[Mapping[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_model(folder / "run") / "model.safetensors"
    contract = replace(read_contract(folder), source=str(source))
    _ = (folder / CONTRACT).write_bytes(contract.to_json())
    monkeypatch.setenv("CXX", "no-such-compiler")
    measured = benchmark_exported(folder, size=(64, 64), batch=1, rounds=1)
    assert list(measured.latencies) == ["eager", "ONNX Runtime"]
    assert any(remark.startswith("compiled: ") and "no-such-compiler" in remark for remark in measured.remarks)


def test_what_can_run_is_timed_and_what_cannot_is_named(
    folder: Path, runtime: list[Mapping[str, np.ndarray]], capsys: pytest.CaptureFixture[str]
) -> None:
    target = folder / "times.json"
    command = ["benchmark", str(folder / "model.onnx"), "--size", "30x40", "--batch", "3", "--pairs", "4"]
    assert main([*command, "--json", str(target)]) == 0
    assert [inputs["images"].shape for inputs in runtime] == [(3, 30, 40, 3)] * 5  # the first one is not counted
    said = capsys.readouterr().out
    assert "ONNX Runtime" in said
    assert "missing: OpenVINO: openvino is not installed; pip install 'resdet[openvino]'" in said
    assert "missing: eager and compiled: the model is not there" in said
    written = json.loads(target.read_text())
    assert written["ONNX Runtime/p50"] <= written["ONNX Runtime/p99"]
    assert written["ONNX Runtime/throughput"] > 0
    assert len(written["missing"]) == 2


def test_nothing_that_runs_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "OPENERS", {})
    with pytest.raises(UserError, match="nothing here can run it: eager and compiled"):
        _ = benchmark_exported(folder, size=(30, 40), batch=1, rounds=1)


def test_an_export_is_told_from_a_config(folder: Path) -> None:
    assert is_exported(folder)
    assert is_exported(folder / "model.onnx")
    assert not is_exported(Path("configs/nano.yaml"))
    assert not is_exported(Path("nano"))


def test_a_graph_without_its_contract_and_a_peer_are_one_line_each(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", str(folder), "--against", "torchvision"]) == 2
    assert "is compared with its own model" in capsys.readouterr().err
    (folder / CONTRACT).unlink()
    assert main(["benchmark", str(tmp_path / "model.onnx")]) == 2
    error = capsys.readouterr().err
    assert "give a folder that resdet export wrote" in error
    assert error.count("\n") == 1
