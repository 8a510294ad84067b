"""`resdet predict`: what it writes, what it refuses, and that one bad image costs no other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resdet.cli.main import main
from resdet.config import load_config
from resdet.data.images.decode import read_image
from resdet.engine.checkpoint import model_metadata, save_checkpoint
from resdet.models.build.detector import build_model
from resdet.predict.prediction import Prediction

ROOT = Path(__file__).parents[2]
NAMES = ("cat", "猫", "[red]\x1b[31mdog")
CATEGORY_IDS = (5, 17, 90)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, which finds something everywhere."""
    run = tmp_path_factory.mktemp("run")
    config = load_config(ROOT / "configs/nano.yaml")
    _ = torch.manual_seed(0)
    model = build_model(config.model, len(NAMES))
    metadata = model_metadata(config, NAMES, CATEGORY_IDS, model.normalization)
    return save_checkpoint(run, step=1, weights=model.state_dict(), metadata=metadata, state={})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"b.jpg": (30, 40, 3), "a.png": (50, 40, 3), "a.jpg": (64, 64, 3)}.items():
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    return folder


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_a_folder_gives_drawings_and_coco_results(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output), "--score", "0.2"]) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "a.jpg", "a_2.jpg", "b.jpg", "images.json", "predictions.json"
    ]  # fmt: skip
    images = read(output, "images.json")
    assert [(image["id"], Path(image["file_name"]).name, image["drawing"]) for image in images["images"]] == [
        (1, "a.jpg", "a.jpg"), (2, "a.png", "a_2.jpg"), (3, "b.jpg", "b.jpg")
    ]  # fmt: skip
    assert [(image["height"], image["width"]) for image in images["images"]] == [(64, 64), (50, 40), (30, 40)]
    assert images["categories"] == [{"id": n, "name": name} for n, name in zip(CATEGORY_IDS, NAMES, strict=True)]
    results = read(output, "predictions.json")
    assert {result["image_id"] for result in results} == {1, 2, 3}
    assert {result["category_id"] for result in results} <= set(CATEGORY_IDS)
    sizes = {image["id"]: (image["width"], image["height"], image["file_name"]) for image in images["images"]}
    for result in results:
        x, y, width, height = result["bbox"]
        limit_x, limit_y, file_name = sizes[result["image_id"]]
        assert result["file_name"] == file_name
        assert x >= 0 <= y
        assert x + width <= limit_x + 1e-4
        assert y + height <= limit_y + 1e-4
        assert 0.05 < result["score"] <= 1
    assert read_image(output / "b.jpg").shape == (8 * 30, 8 * 40, 3)


def test_the_score_decides_what_is_drawn_and_not_what_is_written(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    for score in ("0", "1"):
        command = ["predict", str(checkpoint), str(photos), "--output", str(tmp_path / score), "--score", score]
        assert main(command) == 0
    assert read(tmp_path / "0", "predictions.json") == read(tmp_path / "1", "predictions.json") != []
    assert (tmp_path / "0" / "b.jpg").read_bytes() != (tmp_path / "1" / "b.jpg").read_bytes()


def test_a_bad_image_is_named_and_costs_no_other(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _ = (photos / "a.jpg").write_bytes((photos / "a.jpg").read_bytes()[:900])
    _ = (photos / "c\x1b[2J.png").write_bytes(b"")
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 2
    printed = capsys.readouterr()
    assert "a.jpg: is truncated or damaged" in printed.out
    assert "the file is empty" in printed.out
    assert "\x1b" not in printed.out + printed.err
    assert printed.err.startswith("error: 2 of 4 images could not be read")
    assert printed.err.count("\n") == 1
    images = read(output, "images.json")
    assert [image["id"] for image in images["images"]] == [2, 3]
    assert [image["id"] for image in images["skipped"]] == [1, 4]
    assert {result["image_id"] for result in read(output, "predictions.json")} == {2, 3}


def test_an_earlier_prediction_is_replaced(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 0
    assert main(["predict", str(checkpoint), str(photos / "b.jpg"), "--output", str(output)]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["b.jpg", "images.json", "predictions.json"]


def test_an_interruption_keeps_what_was_predicted(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resdet.predict.prediction_folder import PredictionFolder

    add = PredictionFolder.add

    def interrupted(self: PredictionFolder, prediction: Prediction) -> None:
        if prediction.path is not None and prediction.path.name == "b.jpg":
            raise KeyboardInterrupt
        add(self, prediction)

    monkeypatch.setattr(PredictionFolder, "add", interrupted)
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 143
    assert {result["image_id"] for result in read(output, "predictions.json")} == {1, 2}
    assert [image["id"] for image in read(output, "images.json")["images"]] == [1, 2]
    monkeypatch.undo()
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 0


@pytest.mark.parametrize("content", ["{}", "[]", '{"images": [{"id": 1}]}', "no json", '{"images": [{"drawing": 3}]}'])
def test_a_folder_of_other_things_is_left_alone(
    checkpoint: Path, photos: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    _ = (output / "images.json").write_text(content)
    _ = (output / "b.jpg").write_text("mine")
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 2
    assert "choose another --output" in capsys.readouterr().err
    assert (output / "images.json").read_text() == content
    assert (output / "b.jpg").read_text() == "mine"


def test_mistakes_are_one_line_and_leave_no_folder(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, empty, broken = tmp_path / "out", tmp_path / "empty", tmp_path / "model.safetensors"
    empty.mkdir()
    _ = broken.write_bytes(b"no weights")
    cases = {
        "no such file or folder": [tmp_path / "absent", photos],
        "not a valid safetensors": [broken, photos],
        "neither a run nor a checkpoint": [empty, photos],
        "has no images": [checkpoint, empty],
        "absent.jpg: no such file": [checkpoint, photos / "absent.jpg"],
        "must lie between 0 and 1": [checkpoint, photos, "--score", "1.5"],
    }
    for message, arguments in cases.items():
        assert main(["predict", *map(str, arguments), "--output", str(output)]) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1
        assert not output.exists()


def test_the_output_must_be_a_folder_beside_the_images(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(photos.iterdir())
    assert main(["predict", str(checkpoint), str(photos), "--output", str(photos)]) == 2
    assert "holds the images themselves" in capsys.readouterr().err
    assert sorted(photos.iterdir()) == before
    for output in (photos / "a.jpg", photos / "a.jpg" / "below"):
        assert main(["predict", str(checkpoint), str(photos), "--output", str(output)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom resdet.cli.main import main\n"
        "try:\n    main(['predict', '--help'])\nexcept SystemExit:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.rstrip().endswith("False")
    assert "--score" in done.stdout


def test_a_detector_of_masks_writes_them_and_draws_them(photos: Path, tmp_path: Path) -> None:
    config = load_config(ROOT / "configs/nano.yaml", overrides=["model.mask_head.channels=8"])
    _ = torch.manual_seed(0)
    model = build_model(config.model, len(NAMES))
    metadata = model_metadata(config, NAMES, CATEGORY_IDS, model.normalization)
    checkpoint = save_checkpoint(tmp_path / "run", step=1, weights=model.state_dict(), metadata=metadata, state={})
    output = tmp_path / "out"
    assert main(["predict", str(checkpoint), str(photos), "--output", str(output), "--score", "0.2"]) == 0
    sizes = {image["id"]: [image["height"], image["width"]] for image in read(output, "images.json")["images"]}
    results = read(output, "predictions.json")
    assert len(results) > 0
    for result in results:
        assert result["segmentation"]["size"] == sizes[result["image_id"]]
        assert isinstance(result["segmentation"]["counts"], str)
