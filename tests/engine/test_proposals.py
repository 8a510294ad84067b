"""A run of the first stage alone: trained, evaluated by recall, predicted and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resdet.cli.main import main
from resdet.config import load_config
from resdet.data.batches.loader import open_split
from resdet.engine.checkpoint import find_model_file, read_model_file

NANO = str(Path(__file__).parents[2] / "configs/nano.yaml")
OVERRIDES = ["model.box_head=null", "train.steps=12", "train.checkpoint_every=6", "optim.warmup_steps=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("proposals") / "run"
    assert main(["train", NANO, *OVERRIDES, "--output", str(output)]) == 0
    return output


def figures(path: Path) -> dict[str, float | None]:
    return {name: value for name, value in json.loads(path.read_text()).items() if name.startswith("recall/")}


def test_its_figures_are_recalls_and_the_best_checkpoint_is_chosen_by_them(run: Path) -> None:
    names = {f"recall/AR{size}{limit}" for size in ("", "s", "m", "l") for limit in (100, 300, 1000)}
    written = json.loads((run / "eval.json").read_text())
    assert written.keys() == names | {"resdet", "backend", "step"}
    assert (run / "best").read_text().strip() == "step_00000012"
    assert "AR of 1000 proposals" in (run / "log.txt").read_text()


def test_a_checkpoint_has_one_class_the_object(run: Path) -> None:
    saved = read_model_file(find_model_file(run)[0])
    assert saved.class_names == ("object",)
    assert saved.category_ids == (1,)


def test_evaluation_and_the_score_of_its_predictions_give_the_same_recall(run: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(run), "--output", str(tmp_path / "again")]) == 0
    expected = figures(run / "eval.json")
    assert figures(tmp_path / "again/eval.json") == expected
    config = load_config(NANO, overrides=OVERRIDES)
    truth, scored = open_split(config.data, "val").annotations, tmp_path / "scored.json"
    for predictions in (run / "predictions.json", tmp_path / "again/predictions.json"):
        assert main(["score", str(truth), str(predictions), "--metric", "recall", "--json", str(scored)]) == 0
        assert figures(scored) == expected


def test_prediction_names_every_box_an_object(run: Path, tmp_path: Path) -> None:
    dataset = open_split(load_config(NANO).data, "val")
    image = next(iter(Path(dataset.annotations).parents[1].glob("val/*.jpg")))
    assert main(["predict", str(run), str(image), "--output", str(tmp_path / "out"), "--score", "0.0"]) == 0
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    assert len(found) == 50, "all proposals"
    assert {entry["category_id"] for entry in found} == {1}
    assert "object" in (tmp_path / "out/images.json").read_text()


def test_the_run_goes_on_from_its_checkpoint(run: Path) -> None:
    steps = [override.replace("=12", "=14") for override in OVERRIDES]
    assert main(["train", NANO, *steps, "--output", str(run), "--resume"]) == 0
    assert json.loads((run / "eval.json").read_text())["step"] == 14
