"""`resdet.load`: the detector of a run, its best checkpoint first, ready to predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import resdet
from resdet.config import load_config
from resdet.engine.checkpoint import model_metadata, save_checkpoint
from resdet.engine.run_folder import RunFiles
from resdet.errors import UserError
from resdet.models.build.detector import build_model

ROOT = Path(__file__).parents[2]
IMAGE = np.random.default_rng(0).integers(0, 256, (50, 64, 3), dtype=np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints with different weights, of which the second is the best."""
    config = load_config(ROOT / "configs/nano.yaml")
    saved = []
    for step in (1, 2, 3):
        _ = torch.manual_seed(step)
        model = build_model(config.model, 2)
        metadata = model_metadata(config, ("cat", "dog"), (5, 9), model.normalization)
        saved.append(
            save_checkpoint(tmp_path / "run", step=step, weights=model.state_dict(), metadata=metadata, state={})
        )
    RunFiles(tmp_path / "run").write_best(saved[1])
    return tmp_path / "run"


def step_of(place: Path | str) -> int:
    origin = resdet.load(place).origin
    assert origin is not None
    return origin.step


def test_a_run_is_its_best_checkpoint_and_every_checkpoint_has_a_name(run: Path) -> None:
    assert step_of(run) == step_of(str(run)) == step_of(run / "best") == 2
    assert step_of(run / "last") == 3
    assert step_of(run / "checkpoints/step_00000001") == 1
    assert step_of(run / "checkpoints/step_00000001/model.safetensors") == 1


def test_without_a_sound_best_checkpoint_it_is_the_newest_and_a_remark_says_so(run: Path) -> None:
    damaged = run / "checkpoints/step_00000002/model.safetensors"
    _ = damaged.write_bytes(damaged.read_bytes()[:-1])
    detector = resdet.load(run)
    assert detector.origin is not None
    assert detector.origin.step == 3
    (remark,) = detector.origin.remarks
    assert "damaged checkpoint: model.safetensors has" in remark
    assert remark.endswith("the newest is taken")
    (run / "best").unlink()
    again = resdet.load(run)
    assert again.origin is not None
    assert (again.origin.step, again.origin.remarks) == (3, ())


def test_it_knows_its_classes_and_says_what_it_is(run: Path) -> None:
    detector = resdet.load(run)
    assert (detector.class_names, detector.category_ids) == (("cat", "dog"), (5, 9))
    assert repr(detector) == (
        f"<Predictor {run}/checkpoints/step_00000002/model.safetensors (step 2), "
        "2 classes: cat, dog; images of 64 to 64 pixels>"
    )
    assert {one.class_name for one in detector(IMAGE)} <= {"cat", "dog"}


def test_overrides_ensembles_and_the_device_are_those_of_the_command(run: Path) -> None:
    plain = resdet.load(run)(IMAGE)
    assert len(plain) > 0
    few = resdet.load(run, overrides=["model.box_head.detections=1"], device="cpu")
    assert len(few(IMAGE)) == 1
    both = resdet.load(run / "best", ensemble=[run / "last"])
    assert both.origin is not None
    assert [file.parent.name for file in both.origin.files] == ["step_00000002", "step_00000003"]
    assert both(IMAGE).scores.tolist() != plain.scores.tolist()


def test_mistakes_are_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder; give a run"):
        _ = resdet.load(tmp_path / "absent")
    with pytest.raises(UserError, match=r"is one text; give a list, \['a=b'\]"):
        _ = resdet.load(run, overrides="a=b")
    with pytest.raises(UserError, match=r"train\.device"):
        _ = resdet.load(run, device="gpu")


def test_two_detectors_in_one_process_do_not_touch_each_other(run: Path) -> None:
    first, second = resdet.load(run / "best"), resdet.load(run / "last")
    before = first(IMAGE).scores
    _ = second(IMAGE)
    np.testing.assert_array_equal(first(IMAGE).scores, before)
    assert second(IMAGE).scores.tolist() != before.tolist()
