"""`resdet export`: the folder that it writes, its agreement with the model, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import resdet
from exports import HOSTILE_NAMES, in_a_process, save_model
from resdet.cli.main import main
from resdet.config import load_config
from resdet.data.images.decode import read_image
from resdet.engine.evaluate.detections import evaluated_set
from resdet.errors import UserError
from resdet.exporting.checks import parity, val_images
from resdet.exporting.contract import read_contract
from resdet.exporting.graph import graph_of
from resdet.exporting.preparation import Preparation
from resdet.exporting.runtime import ExportedDetector
from resdet.workflows.export import Exported

FOLDER = ["README.md", "class_names.json", "contract.json", "example.py"]
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = sys.modules["resdet"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0])
"""


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _ = pytest.importorskip(package)
    return in_a_process(checkpoint, tmp_path_factory.mktemp("exports") / "here", measure=True)


def test_the_folder_is_whole(exported: Exported, checkpoint: Path) -> None:
    assert sorted(path.name for path in exported.folder.iterdir()) == [*FOLDER, "model.onnx"]
    assert [path.name for path in exported.folder.parent.iterdir()] == ["here"]
    contract = read_contract(exported.folder)
    assert contract.class_names == HOSTILE_NAMES
    assert contract.category_ids == (5, 17, 90)
    assert [(port.name, port.type, port.shape) for port in contract.inputs] == [
        ("images", "uint8", ("images", "height", "width", 3))
    ]
    assert [port.name for port in contract.outputs] == ["boxes", "scores", "labels", "valid", "masks"]
    assert contract.outputs[4].shape == ("images", 20, 10, 10)
    assert contract.step == 3
    assert contract.source.startswith(str(checkpoint))
    assert json.loads((exported.folder / "class_names.json").read_text(encoding="utf-8")) == list(HOSTILE_NAMES)


def test_the_graph_agrees_with_the_model_on_twenty_images_and_on_one_without_objects(exported: Exported) -> None:
    assert exported.parity.images == 21
    assert exported.parity.detections > 100
    assert exported.parity.unequal == 0
    assert max(exported.parity.boxes, exported.parity.scores, exported.parity.masks or 0) < 1e-4
    assert exported.parity.holds


def test_an_entry_without_a_detection_is_zero(exported: Exported) -> None:
    run = exported.load()._run
    found = run({"images": np.full((1, 64, 64, 3), 128, np.uint8)})
    assert found["valid"].shape == (1, 20)
    for name in ("boxes", "scores", "labels", "masks"):
        assert not found[name][~found["valid"]].any(), name


def test_any_number_of_images_of_any_size(exported: Exported, checkpoint: Path) -> None:
    """The graph was made from two images of one size."""
    model = resdet.load(checkpoint).model
    preparation = Preparation(64, 64, 32)
    graph = graph_of(model, preparation, preprocessing="inside")
    run = exported.load()._run
    rng = np.random.default_rng(0)
    for count, height, width in ((1, 64, 64), (3, 200, 90), (2, 17, 300)):
        images = rng.integers(0, 256, (count, height, width, 3), np.uint8)
        found = run({"images": images})
        wanted = dict(zip(graph.output_names, graph.module(torch.from_numpy(images)), strict=True))
        assert wanted["valid"].any()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value.numpy(), atol=1e-3, err_msg=f"{name} of {images.shape}")


def test_the_runtime_finds_what_the_predictor_finds(exported: Exported, checkpoint: Path) -> None:
    """On images of the size that the detector wants, which are not resized."""
    dataset = evaluated_set(load_config("nano"))
    predictor, detector = resdet.load(checkpoint), exported.load()
    for index in range(3):
        image = read_image(dataset.path(index))
        found, wanted = detector(image), predictor(image)
        assert len(found.scores) == len(wanted) > 0
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)
        assert found.labels.tolist() == wanted.labels.tolist()


def test_the_example_needs_the_runtime_and_numpy_alone(exported: Exported, tmp_path: Path) -> None:
    image = read_image(evaluated_set(load_config("nano")).path(0))
    np.save(tmp_path / "photo.npy", image)
    code = (exported.folder / "example.py").read_text()
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    command = [sys.executable, "-c", WITHOUT_TORCH, str(exported.folder / "example.py"), str(tmp_path / "photo.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = exported.load()(image)
    assert done.stdout.count("pixels of its mask") == (found.scores >= 0.5).sum()


def test_the_card_states_figures_with_intervals_and_names_as_text(exported: Exported) -> None:
    card = (exported.folder / "README.md").read_text(encoding="utf-8")
    assert "with 95 % intervals" in card
    assert "COCO's figures of boxes on the 20 images" in card
    assert "COCO's figures of masks" in card
    assert "猫" in card
    assert "\x1b" not in card
    assert all(line.startswith("    ") for line in card.splitlines() if "javascript" in line)
    assert exported.cost is not None
    difference = exported.cost.kinds["bbox"].differences["exported"]["AP"].difference
    assert difference is None or abs(difference) < 1e-3


def test_a_failure_leaves_the_earlier_export(
    exported: Exported, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resdet.workflows import export as workflow

    def failing(*_: object) -> str:
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in exported.folder.iterdir()}
    monkeypatch.setattr(workflow, "onnx_model", failing)
    with pytest.raises(UserError, match="No space left on device"):
        _ = resdet.export(checkpoint, exported.folder)
    assert {path.name: path.read_bytes() for path in exported.folder.iterdir()} == before
    assert [path.name for path in exported.folder.parent.iterdir()] == ["here"]


def test_a_folder_of_other_things_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    _ = (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        _ = resdet.export(checkpoint, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "pt2", "--preprocessing", "inside"], "preprocessing=inside: pt2 has outside"),
        (["--format", "pt2", "--precision", "int8"], "precision=int8: pt2 has fp32 and fp16"),
        (["--format", "openvino", "--precision", "int8-dynamic"], "openvino has fp32 and fp16 and int8"),
        (["test.augmentation.flip=true"], "parts of `test` are not exported"),
    ],
)  # fmt: skip
def test_what_a_format_lacks_is_one_line(
    checkpoint: Path, tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(checkpoint), *options, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_line(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript is not installed; pip install 'resdet\[export\]'"):
        _ = resdet.export(checkpoint, tmp_path / "out")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}', '{"file": "../../etc/passwd"}'])
def test_a_folder_that_is_no_export_is_one_line(tmp_path: Path, content: str) -> None:
    _ = (tmp_path / "contract.json").write_text(content)
    with pytest.raises(UserError, match="contract"):
        _ = ExportedDetector(tmp_path)


def test_images_are_generated_where_there_is_no_val_set(tmp_path: Path) -> None:
    config = load_config("nano", overrides=["data.val.name=coco", f"data.val.annotations={tmp_path}/none.json"])
    dataset, images = val_images(config)
    assert dataset is None
    assert len(images) == 21


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "precision", "preprocessing"),
    [
        ("onnx", "fp32", "outside"),
        ("onnx", "fp16", "inside"),
        ("onnx", "int8", "inside"),
        ("onnx", "int8-dynamic", "inside"),
        ("pt2", "fp32", "outside"),
        ("openvino", "fp32", "inside"),
        ("openvino", "fp32", "outside"),
        ("openvino", "fp16", "inside"),
        ("openvino", "int8", "inside"),
    ],
)
def test_every_format_runs_and_its_example_too(
    checkpoint: Path, tmp_path: Path, format: str, precision: str, preprocessing: str
) -> None:
    _ = pytest.importorskip("openvino" if format == "openvino" else "onnxruntime")
    done = in_a_process(checkpoint, tmp_path / "out", format=format, precision=precision, preprocessing=preprocessing)
    if precision == "fp32":
        assert done.parity.holds, done.parity
    image = read_image(evaluated_set(load_config("nano")).path(0))
    np.save(tmp_path / "photo.npy", image)
    command = [sys.executable, str(done.folder / "example.py"), str(tmp_path / "photo.npy")]
    example = subprocess.run(command, capture_output=True, text=True, check=False)
    assert example.returncode == 0, example.stderr
    found = done.load()(image)
    assert example.stdout.count("pixels of its mask") == (found.scores >= 0.5).sum()


def test_what_a_program_costs_is_measured_in_float32_whatever_the_run_multiplies_in(tmp_path: Path) -> None:
    """bfloat16 would change the model's figures, and the operators of a program do not take it."""
    checkpoint = save_model(tmp_path, "train.amp=bf16")
    done = in_a_process(checkpoint, tmp_path / "out", format="pt2", preprocessing="outside", measure=True)
    assert done.cost is not None
    figures = done.cost.kinds["bbox"].detectors
    assert figures["model"]["AP"].value == pytest.approx(figures["exported"]["AP"].value, abs=1e-12)


def test_parity_sees_a_difference(checkpoint: Path) -> None:
    """Of a run that gives the model's own outputs, with one score moved."""
    graph = graph_of(resdet.load(checkpoint).model, Preparation(64, 64, 32), preprocessing="inside")
    image = read_image(evaluated_set(load_config("nano")).path(0))

    def run(given: object, *, change: float) -> dict[str, np.ndarray]:
        found = dict(
            zip(graph.output_names, (v.numpy() for v in graph.module(torch.from_numpy(image[None]))), strict=True)
        )
        found["scores"][0, 0] += change
        return found

    assert parity(graph, lambda given: run(given, change=0.0), [image]).holds
    assert not parity(graph, lambda given: run(given, change=0.001), [image]).holds
