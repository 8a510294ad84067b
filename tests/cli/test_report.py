"""`resdet report`: one line for a mistake, a report at the end of training, and no failure of a run over its report."""

import json
from pathlib import Path

import pytest

from resdet.cli.main import main
from resdet.config import load_config

NANO = Path(__file__).parents[2] / "configs/nano.yaml"
TINY = ("data.shapes.train_images=4", "data.shapes.val_images=2", "train.steps=2", "train.log_every=1")


def test_a_folder_that_is_no_run_is_a_mistake_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(tmp_path)]) == 2
    reason = "is no run folder, for it has no config.yaml; give the --output of resdet train"
    assert capsys.readouterr().err == f"error: {tmp_path}: {reason}\n"


@pytest.mark.parametrize("images", ["0", "-4"])
def test_a_run_is_trained_on_one_image_at_least(images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", str(NANO), "--output", str(tmp_path / "run"), f"--overfit={images}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: train.overfit={images} must be a whole number of at least 1")
    assert not (tmp_path / "run").exists()


def test_every_command_knows_that_a_run_was_trained_on_a_few_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    assert main(["train", str(NANO), *TINY, "--output", str(run), "--overfit", "2"]) == 0
    assert load_config(run / "config.yaml").train.overfit == 2
    assert len(list((run / "drawings").iterdir())) == 2 + 1
    in_training = json.loads((run / "eval.json").read_text())
    assert "2 images," in (run / "report.html").read_text()
    assert main(["evaluate", str(run), "--output", str(tmp_path / "again")]) == 0
    assert "train.overfit=2: on training images" in capsys.readouterr().out
    assert json.loads((tmp_path / "again" / "eval.json").read_text()) == in_training
    assert main(["train", str(NANO), *TINY, "--output", str(run), "--resume"]) == 2
    assert "train.overfit=null (was 2)" in capsys.readouterr().err
    assert main(["train", "train.steps=3", "--output", str(run), "--resume"]) == 0


def test_a_run_that_was_trained_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    assert main(["train", str(NANO), *TINY, "--output", str(run)]) == 0
    assert f"report: {run}/report.html" in capsys.readouterr().out
    html = (run / "report.html").read_text()
    for anchor in ("figures", "mistakes", "worst", "gallery", "training", "data", "config"):
        assert f'<section id="{anchor}">' in html

    elsewhere = tmp_path / "elsewhere.html"
    assert main(["report", str(run), "--output", str(elsewhere)]) == 0
    assert elsewhere.exists()
    assert main(["report", str(run), "--output", str(tmp_path / "absent" / "report.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
