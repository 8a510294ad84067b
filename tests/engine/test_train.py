"""Training: what a run leaves, and a resume that ends with the same bits."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_resume import weights_hash

from resdet.config import Config, load_config
from resdet.config.diff import resume_warnings
from resdet.data.batches.loader import open_split
from resdet.engine import checkpoint
from resdet.engine.checkpoint import checkpoints, read_model_file, read_state
from resdet.engine.distributed import World
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.run_folder import RunFiles
from resdet.engine.saved_models import load_model
from resdet.engine.train import train
from resdet.engine.train.loop import due
from resdet.engine.train.optim import build_optimizer
from resdet.engine.train.state import TrainState
from resdet.errors import UserError
from resdet.evaluation.coco import evaluate_coco, read_ground_truth, read_results
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.version import __version__
from resdet.weights import WeightContract, save_weights

ROOT = Path(__file__).parents[2]


def losses(lines: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(line["step"], line["loss"].hex()) for line in lines if "loss" in line]


def test_due_is_every_so_many_steps_and_never_for_zero():
    assert [step for step in range(10) if due(step, 4)] == [4, 8]
    assert not any(due(step, 0) for step in range(10))


def test_a_run_leaves_what_the_next_reader_needs(tmp_path: Path, nano: Config, read_metrics: Any):
    nano.eval.every = 3
    run = tmp_path / "run"
    metrics = train(nano, run)
    assert {path.name for path in run.iterdir()} == {
        ".lock", "best", "checkpoints", "config.yaml", "data_report.json", "eval.json", "log.txt", "metrics.jsonl",
        "predictions.json", "resources.json",
    }  # fmt: skip
    written = json.loads((run / "eval.json").read_text())
    assert written.pop("resdet") == __version__
    assert written.pop("backend").split()[0] in ("pycocotools", "hotcoco")
    assert written.pop("step") == 6
    assert written == metrics
    lines = read_metrics(run)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "bbox/AP" in line] == [3, 6]
    assert {"lr", "loss", "grad_norm", "images_per_second", "data_wait", "loss_objectness"} <= lines[0].keys()
    total = sum(value for name, value in lines[0].items() if name.startswith("loss_"))
    assert lines[0]["loss"] == pytest.approx(total)
    assert (run / "best").read_text().strip() in {path.name for path in checkpoints(run)}
    assert "learning rate 0.01 = 0.08 x 2 / 16" in (run / "log.txt").read_text()


def test_the_predictions_a_run_leaves_score_as_it_says(tmp_path: Path, nano: Config):
    assert nano.model.box_head is not None
    nano.train.steps, nano.optim.lr, nano.model.box_head.score_threshold = 2, 0.0, 0.0
    metrics = train(nano, tmp_path / "run")
    truth = read_ground_truth(open_split(nano.data, "val").annotations)
    results = read_results(tmp_path / "run/predictions.json", truth)
    assert len(results) > 0
    assert evaluate_coco(truth, results) == pytest.approx(metrics, nan_ok=True)


def test_a_resume_at_every_step_ends_with_the_same_bits(
    tmp_path: Path, nano: Config, full_run: Path, read_metrics: Any
):
    for step in (1, 3, 5):
        run = tmp_path / f"resumed-{step}"
        _ = shutil.copytree(full_run, run)
        for path in checkpoints(run)[step:]:
            shutil.rmtree(path)
        _ = torch.manual_seed(step)  # whatever the process did before
        _ = train(nano, run, resume=True)
        assert weights_hash(run, 6) == weights_hash(full_run, 6)
        assert losses(read_metrics(run)) == losses(read_metrics(full_run))
        ours, theirs = (read_state(checkpoint.checkpoint_path(path, 6)) for path in (run, full_run))
        assert {k: ours[k] for k in ("best", "best_step", "step")} == {
            k: theirs[k] for k in ("best", "best_step", "step")
        }


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(full_run: Path, nano: Config):
    wanted = weights_hash(full_run, 6)
    _ = (checkpoint.checkpoint_path(full_run, 6) / checkpoint.MODEL).write_bytes(b"")
    _ = train(nano, full_run, resume=True)
    assert "step_00000006: model.safetensors has 0 bytes" in (full_run / "log.txt").read_text()
    assert weights_hash(full_run, 6) == wanted


def test_workers_do_not_change_the_run(tmp_path: Path, nano: Config, full_run: Path):
    nano.data.workers = 1
    _ = train(nano, tmp_path / "workers")
    assert weights_hash(tmp_path / "workers", 6) == weights_hash(full_run, 6)


def test_a_finished_run_says_so_and_gives_its_figures_again(full_run: Path, nano: Config):
    before = {
        name: v for name, v in json.loads((full_run / "eval.json").read_text()).items() if name.startswith("bbox")
    }
    assert train(nano, full_run, resume=True) == before
    assert "finished at step 6 before" in (full_run / "log.txt").read_text()


def test_a_resume_with_another_config_names_the_keys(full_run: Path, nano: Config):
    nano.optim.lr, nano.model.neck.channels = 0.5, 8
    with pytest.raises(UserError, match=r"model.neck.channels=8 \(was 16\), optim.lr=0.5 \(was 0.08\)"):
        _ = train(nano, full_run, resume=True)


def test_a_resume_may_change_what_does_not_touch_the_result(nano: Config):
    other = replace(nano, data=replace(nano.data, workers=3), train=replace(nano.train, log_every=7))
    assert resume_warnings(nano, other, Path("run")) == []
    longer = replace(nano, train=replace(nano.train, steps=12))
    assert resume_warnings(nano, longer, Path("run")) == ["train.steps was 6 and is now 12"]


def test_a_resume_on_other_data_is_refused(tmp_path: Path, full_run: Path, nano: Config):
    source = json.loads((full_run / "data_report.json").read_text())["train"]
    changed = json.loads(Path(source["annotations"]).read_text())
    del changed["annotations"][0]
    _ = (tmp_path / "changed.json").write_text(json.dumps(changed))
    _ = Path(source["annotations"]).replace(tmp_path / "kept.json")
    _ = shutil.copy(tmp_path / "changed.json", source["annotations"])
    try:
        with pytest.raises(UserError, match=r"was trained on other data"):
            _ = train(nano, full_run, resume=True)
    finally:
        _ = (tmp_path / "kept.json").replace(source["annotations"])


def test_another_number_of_threads_is_a_warning_with_both(full_run: Path, nano: Config):
    nano.train.steps = 7
    torch.set_num_threads(2)
    _ = train(nano, full_run, resume=True)
    text = (full_run / "log.txt").read_text()
    assert "warning: the run had threads=1 and goes on with 2" in text
    assert "warning: train.steps was 6 and is now 7" in text


def test_a_run_is_never_overwritten(full_run: Path, nano: Config):
    with pytest.raises(UserError, match=r"already holds a run; continue it with --resume"):
        _ = train(nano, full_run)


def test_a_folder_of_something_else_is_refused_also_with_resume(tmp_path: Path, nano: Config):
    _ = (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(UserError, match=r"not empty and not a run of resdet"):
            _ = train(nano, tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_resume_with_nothing_to_resume_begins(tmp_path: Path, nano: Config):
    nano.train.steps = 1
    _ = train(nano, tmp_path / "new", resume=True)
    assert "holds no checkpoint yet: training begins at step 0" in (tmp_path / "new/log.txt").read_text()


def test_everything_with_a_state_is_saved(nano: Config, full_run: Path):
    """Walks the state: whatever has a state_dict, or is a number, has its place in the checkpoint."""
    model = build_model(nano.model, 1)
    state = TrainState(model, build_optimizer(model, nano.optim))
    snapshot = state.snapshot("", World())
    for name, value in vars(state).items():
        # Their weights are kept as weights (test_ema.py, test_sharded.py), and a resumed training gathers anew.
        if name not in ("model", "ema", "gathered", "gathered_at"):
            assert name in snapshot, f"TrainState.{name} is lost in a checkpoint"
            if hasattr(value, "state_dict"):
                assert snapshot[name] == value.state_dict()
    assert read_state(checkpoints(full_run)[-1]).keys() == snapshot.keys()


def test_a_dry_run_writes_nothing(tmp_path: Path, nano: Config, capsys: pytest.CaptureFixture[str]):
    assert train(nano, tmp_path / "dry", dry_run=True) == {}
    assert list(tmp_path.iterdir()) == []
    printed = capsys.readouterr().out
    for words in ("parameters", "learning rate", "s a step", "memory", "nothing was written", "evaluation batch"):
        assert words in printed


def test_overfit_trains_and_evaluates_on_the_same_images(tmp_path: Path, nano: Config):
    nano.train.steps, nano.train.overfit = 1, 3
    _ = train(nano, tmp_path / "run")
    report = json.loads((tmp_path / "run/data_report.json").read_text())
    assert report["train"] == report["val"]
    assert "overfit: trains and evaluates on the same 3 images" in (tmp_path / "run/log.txt").read_text()


def test_batch_norm_with_one_image_a_process_is_refused(tmp_path: Path, nano: Config):
    nano.model.backbone.norm, nano.train.batch_size = "bn", 1
    with pytest.raises(UserError, match=r"batch normalization with 1 image a process"):
        _ = train(nano, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_frozen_layers_with_random_weights_are_a_loud_warning(tmp_path: Path, nano: Config):
    nano.model.backbone.norm, nano.train.steps = "frozen_bn", 1
    _ = train(nano, tmp_path / "run")
    assert (
        "warning: frozen batch normalization with random weights will never learn"
        in (tmp_path / "run/log.txt").read_text()
    )


def test_a_number_of_classes_that_the_data_does_not_have_is_an_error(tmp_path: Path, nano: Config):
    nano.model.num_classes = 80
    with pytest.raises(UserError, match=r"model.num_classes=80, but .* has 8 categories"):
        _ = train(nano, tmp_path / "run")


def test_a_batch_that_cannot_be_shared_is_an_error(nano: Config):
    from resdet.engine.train.build import check_setup

    with pytest.raises(UserError, match=r"train.batch_size=2 .* divisible by their number, 4"):
        check_setup(nano, World(size=4))


def test_a_run_that_goes_on_from_an_older_checkpoint_forgets_the_later_ones(tmp_path: Path, nano: Config):
    run = tmp_path / "run"
    nano.train.keep_checkpoints, nano.eval.every = 5, 3
    _ = train(nano, run)
    _ = (run / "best").write_text("step_00000006\n")
    nano.train.steps = 4
    _ = train(nano, run, resume=checkpoint.checkpoint_path(run, 3))
    assert [path.name for path in checkpoints(run)] == ["step_00000003", "step_00000004"]
    assert (run / "checkpoints/abandoned_1_step_00000006/model.safetensors").is_file()
    assert "its later checkpoints are set aside as abandoned_1_step_00000006" in (run / "log.txt").read_text()
    assert read_model_file(checkpoint.find_model_file(run)[0]).step == 4
    assert RunFiles(run).best() in ("step_00000003", "step_00000004")
    nano.train.steps = 5
    _ = train(nano, run, resume=True)
    assert checkpoints(run)[-1].name == "step_00000005"


def test_an_image_that_cannot_be_read_is_said_once_and_counted(tmp_path: Path, nano: Config):
    nano.data.shapes.seed = 1  # a data set of its own, to be damaged
    nano.data.on_bad_image, nano.data.max_bad_fraction = "skip", 0.2
    dataset = open_split(nano.data, "train")
    _ = dataset.path(3).write_bytes(b"not an image")
    _ = train(nano, tmp_path / "run")
    text = (tmp_path / "run/log.txt").read_text()
    assert text.count("warning: left out: ") == 1
    assert dataset.file_names[3] in text
    unreadable = json.loads((tmp_path / "run/data_report.json").read_text())["unreadable"]
    assert len(unreadable) == 1
    assert dataset.file_names[3] in unreadable[0]


def test_training_can_start_from_another_run_of_other_classes(tmp_path: Path, nano: Config, full_run: Path):
    nano.model.weights, nano.train.steps = str(full_run), 1
    _ = train(nano, tmp_path / "tuned")
    assert " 0 missing, 0 unexpected, 0 mismatched" in (tmp_path / "tuned/log.txt").read_text()


def test_weights_bring_their_normalization_which_outlives_their_file(tmp_path: Path, nano: Config, full_run: Path):
    """Backbone weights with another mean: a fine-tuned, a resumed and an evaluated model normalize as they did."""
    mean, std = (100.0, 110.5, 120.0), (1.0, 2.0, 57.375)
    source = load_model(full_run)[0]
    state = {k.removeprefix("backbone."): v for k, v in source.state_dict().items() if k.startswith("backbone.")}
    save_weights(tmp_path / "nano.safetensors", state, WeightContract(mean, std, source="a test"))
    nano.model.backbone.weights, nano.train.steps = str(tmp_path / "nano.safetensors"), 3

    def normalizes_so(run: str) -> bool:
        model, config, *_ = load_model(tmp_path / run)
        assert config == load_config(tmp_path / run / "config.yaml")
        assert config.model.pixel_mean is None, "which the user left open"
        assert isinstance(model, RCNN)
        line = f"images are normalized by the mean {list(mean)} and the deviation {list(std)}"
        return model.normalization == (list(mean), list(std)) and line in (tmp_path / run / "log.txt").read_text()

    trained = train(nano, tmp_path / "run")
    assert normalizes_so("run")
    assert evaluate_checkpoint(tmp_path / "run").figures == trained
    (tmp_path / "nano.safetensors").unlink()

    nano.train.steps = 6
    _ = train(nano, tmp_path / "run", resume=True)
    assert normalizes_so("run")

    nano.model.backbone.weights = str(tmp_path / "run")
    _ = train(nano, tmp_path / "backbone")
    assert normalizes_so("backbone")

    nano.model.backbone.weights, nano.model.weights = None, str(tmp_path / "run")
    _ = train(nano, tmp_path / "tuned")
    assert normalizes_so("tuned")
    nano.model.pixel_mean = [0.0, 0.0, 0.0]
    with pytest.raises(UserError, match=r"pixel_mean: the weights have \(100.*, the model \(0"):
        _ = train(nano, tmp_path / "other")
