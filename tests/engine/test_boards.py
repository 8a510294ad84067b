"""The other receivers of a run's figures: each gets what metrics.jsonl has, and a resumed run goes on in its place."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from resdet.config import Config, load_config
from resdet.engine.boards import Board, MlflowBoard, boards_of, tensorboard
from resdet.engine.log import RunLog
from resdet.engine.train import train
from resdet.errors import UserError


class Recorder:
    """A board in memory."""

    def __init__(self) -> None:
        self.figures: list[tuple[str, float, int]] = []
        self.closed = False

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.figures.append((tag, scalar_value, global_step))

    def close(self) -> None:
        self.closed = True


def test_every_board_gets_the_figures_that_are_defined(tmp_path: Path) -> None:
    boards = [Recorder(), Recorder()]
    assert all(isinstance(board, Board) for board in boards)
    with RunLog(tmp_path, steps=1, boards=boards) as log:
        log.metrics(3, {"bbox/AP": 0.5, "segm/AP": None})
    assert [board.figures for board in boards] == [[("bbox/AP", 0.5, 3)]] * 2
    assert all(board.closed for board in boards)


def test_no_board_is_open_unless_asked_for(tmp_path: Path, nano: Config) -> None:
    assert boards_of(nano, tmp_path) == []


@pytest.mark.parametrize(
    ("key", "module", "line"),
    [
        ("tensorboard=true", "torch.utils.tensorboard", r"train.tensorboard=true needs .*'\.\[log\]'"),
        ("wandb=mine", "wandb", r"train.wandb needs a package more: pip install -e '\.\[wandb\]'"),
        ("mlflow=mine", "mlflow", r"train.mlflow needs a package more: pip install -e '\.\[mlflow\]'"),
    ],
)
def test_without_its_package_a_board_is_one_line_before_anything_is_written(
    tmp_path: Path, nano_arguments: list[str], monkeypatch: pytest.MonkeyPatch, key: str, module: str, line: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    config, *overrides = nano_arguments
    with pytest.raises(UserError, match=line):
        _ = train(load_config(config, overrides=[*overrides, f"train.{key}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")
def test_tensorboard_writes_event_files(tmp_path: Path) -> None:
    board = tensorboard(tmp_path)
    board.add_scalar("loss", 1.0, 1)
    board.close()
    assert list(tmp_path.glob("events.out.*"))


def logged_losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_one_run_with_all_figures_also_after_a_resume(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow: Any = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    nano.train.mlflow, nano.train.steps = "shapes", 3
    run = tmp_path / "run"
    _ = train(nano, run)
    nano.train.steps = 5
    _ = train(nano, run, resume=True)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    place = client.get_experiment_by_name("shapes").experiment_id
    (only,) = client.search_runs([place])
    history = [(each.step, each.value) for each in client.get_metric_history(only.info.run_id, "loss")]
    assert history == logged_losses(run)
    assert only.data.params["optim.lr"] == "0.08"
    assert only.info.run_name == "run"
    board = MlflowBoard(run, "shapes", nano)
    board.add_scalar("bbox/AP/naïve [class]", 0.5, 5)
    board.close()


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_keeps_one_number_over_a_resume(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    nano.train.wandb, nano.train.steps = "shapes", 2
    run = tmp_path / "run"
    _ = train(nano, run)
    number = (run / ".wandb_run").read_text().strip()
    nano.train.steps = 3
    _ = train(nano, run, resume=True)
    assert (run / ".wandb_run").read_text().strip() == number
    assert len(list((run / "wandb").glob(f"offline-run-*-{number}"))) == 2, "two attempts, to be synced into one run"
