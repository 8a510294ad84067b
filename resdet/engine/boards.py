"""Other receivers of a run's figures: TensorBoard, Weights & Biases and MLflow. Their packages are extras.

A run that is resumed goes on in the same place: its number there is kept in the run's folder. Where they send the
figures, and whether they send them at all, is up to their own environment variables (WANDB_MODE=offline,
MLFLOW_TRACKING_URI).
"""

from __future__ import annotations

import math
import os
import re
import uuid
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from resdet.config import Config
from resdet.config.diff import flat
from resdet.engine.run_folder import RunFiles
from resdet.errors import UserError

MLFLOW_FILE = "mlflow.db"  # in the run's folder, unless MLFLOW_TRACKING_URI names a server


@runtime_checkable
class Board(Protocol):
    """A receiver of figures, in the form of TensorBoard's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


def boards_of(config: Config, folder: Path) -> list[Board]:
    """The receivers that `train.tensorboard`, `train.wandb` and `train.mlflow` ask for. The folder must exist.

    Raises UserError for a package that is not installed.
    """
    train = config.train
    boards: list[Board] = [tensorboard(folder)] if train.tensorboard else []
    if train.wandb is not None:
        boards.append(WandbBoard(folder, train.wandb, config))
    if train.mlflow is not None:
        boards.append(MlflowBoard(folder, train.mlflow, config))
    return boards


def check_boards(config: Config) -> None:
    """Raises UserError for a package that is not installed, before anything is written."""
    if config.train.tensorboard:
        _ = _tensorboard_writer()
    if config.train.wandb is not None:
        _ = _wandb()
    if config.train.mlflow is not None:
        _ = _mlflow()


def tensorboard(folder: Path) -> Board:
    """Event files in the run's folder: `tensorboard --logdir runs` compares several runs."""
    return _tensorboard_writer()(str(folder))


class WandbBoard:
    """One run of Weights & Biases, named after the folder; its own files are in the folder too."""

    def __init__(self, folder: Path, project: str, config: Config) -> None:
        self._run = _wandb().init(
            project=project,
            name=folder.resolve().name,
            id=_number_of(folder, "wandb"),
            resume="allow",
            dir=str(folder),
            config=flat(config),
        )

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self._run.log({tag: scalar_value}, step=global_step)

    def close(self) -> None:
        self._run.finish()


class MlflowBoard:
    """One run of MLflow, named after the folder."""

    def __init__(self, folder: Path, experiment: str, config: Config) -> None:
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / MLFLOW_FILE).resolve()}"
        self._client: Any = _mlflow().MlflowClient(tracking_uri=address)
        found = self._client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self._client.create_experiment(experiment)
        number = _number_of(folder, "mlflow")
        runs = self._client.search_runs([place], filter_string=f"tags.resdet = '{number}'")
        name = folder.resolve().name
        run = runs[0] if runs else self._client.create_run(place, run_name=name, tags={"resdet": number})
        self._run: str = run.info.run_id
        if not runs:
            for key, value in flat(config).items():
                self._client.log_param(self._run, key, value)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        if math.isfinite(scalar_value):  # its data base has no other numbers
            name = re.sub(r"[^\w./ -]", "_", tag, flags=re.ASCII)
            self._client.log_metric(self._run, name, scalar_value, step=global_step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _number_of(folder: Path, board: str) -> str:
    """The number of the folder's run on a board; a new one the first time."""
    return RunFiles(folder).number_on(board, otherwise=uuid.uuid4().hex[:16])


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise UserError("train.tensorboard=true needs a package more: pip install -e '.[log]'") from None
    return SummaryWriter


def _wandb() -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError("train.wandb needs a package more: pip install -e '.[wandb]'") from None
    return wandb


def _mlflow() -> Any:
    try:
        import mlflow  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError("train.mlflow needs a package more: pip install -e '.[mlflow]'") from None
    return mlflow
