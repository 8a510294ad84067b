"""The objects of a training run, and its state, which is saved in a checkpoint and restored exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from timm.utils.model_ema import ModelEmaV3
from torch.amp.grad_scaler import GradScaler

from resdet.config import Config
from resdet.config.diff import resume_warnings
from resdet.engine.checkpoint import load_weights, read_model_file, read_state
from resdet.engine.distributed import World, whole
from resdet.engine.log import RunLog
from resdet.engine.resources import Usage
from resdet.engine.run_folder import MODEL, Figures, RunFiles
from resdet.engine.signals import StopRequest
from resdet.engine.task.best import Goal
from resdet.engine.task.interface import ImageSet, Model, Task
from resdet.engine.train.divergence import Past
from resdet.engine.train.optim import rate_warnings
from resdet.engine.train.optimizers import load_optimizer
from resdet.engine.train.unread import Unread
from resdet.errors import UserError
from resdet.models.build.conventions import normalize_as


@dataclass
class TrainState:
    """Everything that training changes; a checkpoint contains all of it."""

    model: Model
    optimizer: torch.optim.Optimizer
    ema: ModelEmaV3 | None = None  # the average of the weights
    gathered: Model | None = None  # with train.parallel=fsdp: the whole model, as `gather` left it
    gathered_at: int | None = None  # the number of updates that its weights have
    scaler: GradScaler | None = None  # of the loss, with train.amp=fp16
    step: int = 0  # the number of updates so far
    best: float | None = None  # the highest value so far of the task's main figure
    best_step: int = 0
    stale: int = 0  # evaluations since the best one
    fitted: bool = False  # whether the steps were fitted to train.minutes
    evaluated: int = 0  # the step of the last evaluation
    skipped: int = 0  # consecutive updates that were skipped because a gradient was not finite
    dropped: int = 0  # objects that transforms removed from this process's images since the last line of the log

    def is_over(self, config: Config) -> bool:
        """Whether the training has ended: after `train.steps`, or when the evaluations no longer improve."""
        return self.step >= config.train.steps or self.out_of_patience(config)

    def out_of_patience(self, config: Config) -> bool:
        return config.train.patience is not None and self.stale >= config.train.patience

    @property
    def scored(self) -> Model:
        """The model that is evaluated and saved as a checkpoint's weights: the average if there is one."""
        return self.whole if self.ema is None else cast(Model, self.ema.module)

    @property
    def whole(self) -> Model:
        """The model that is trained, or, where that is in shards, the whole one as `gather` left it."""
        return self.model if self.gathered is None else self.gathered

    @torch.no_grad()
    def gather(self, *, within_update: bool = False) -> None:
        """Puts the shards of the weights together, if they are in shards; every process must call this.

        Between two updates this is done once. `within_update` the running statistics may have changed already.
        """
        if self.gathered is None or (self.gathered_at == self.step and not within_update):
            return
        values = self.model.state_dict()
        for name, mine in self.gathered.state_dict().items():
            _ = mine.copy_(whole(values[name]))
        self.gathered_at = None if within_update else self.step

    def snapshot(self, data: str, world: World) -> dict[str, Any]:
        """The content of a checkpoint besides the weights of `scored`: only tensors and plain values."""
        return {
            "trained_weights": None if self.ema is None else self.model.state_dict(),
            "optimizer": whole(self.optimizer.state_dict()),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "stale": self.stale,
            "fitted": self.fitted,
            "evaluated": self.evaluated,
            "skipped": self.skipped,
            "dropped": sum(world.gather(self.dropped)),
            "generators": world.gather(_generators()),
            "world_size": world.size,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "data": data,
        }

    def restore(self, checkpoint: Path, config: Config, data: str, world: World) -> list[str]:
        """Continues from a checkpoint; returns a warning for each difference that changes the results.

        Raises UserError that names the keys if the checkpoint belongs to another experiment.
        """
        saved, file = read_state(checkpoint), read_model_file(checkpoint / MODEL)
        warnings = resume_warnings(file.config, config, checkpoint)
        if saved["data"] != data:
            raise UserError(
                f"{checkpoint}: was trained on other data (the images or annotations of data.train have changed);"
                " train it in a new --output with model.weights set to its model.safetensors"
            )
        for model in (self.scored, self.model):
            load_weights(model, file.weights, str(checkpoint))
            normalize_as(model, config.model, file.contract)
        if self.ema is not None:
            load_weights(self.model, saved["trained_weights"], str(checkpoint))
        load_optimizer(self.optimizer, saved["optimizer"])
        if self.scaler is not None and saved.get("scaler") is not None:  # None: the run had another precision
            self.scaler.load_state_dict(saved["scaler"])
        self.step, self.best, self.best_step = saved["step"], saved["best"], saved["best_step"]
        self.evaluated, self.skipped = saved["evaluated"], saved["skipped"]
        self.stale, self.fitted = saved.get("stale", 0), saved.get("fitted", False)  # absent before version 0.2
        self.dropped = saved.get("dropped", 0) if world.leads else 0  # of all processes together
        if world.rank < len(saved["generators"]):
            _set_generators(saved["generators"][world.rank])
        here = {"world_size": world.size, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}
        warnings += rate_warnings(file.config, config, self.step)
        return warnings + [
            f"the run had {name}={saved[name]} and goes on with {value}: results agree up to rounding"
            for name, value in here.items()
            if saved[name] != value
        ]


@dataclass
class Run:
    """The inputs and outputs of a training run, and the state that lives only in the process."""

    config: Config
    task: Task[Any]
    folder: Path
    world: World
    device: torch.device
    train_set: ImageSet
    val_set: ImageSet
    log: RunLog
    stop: StopRequest
    usage: Usage
    goal: Goal
    writes: bool = True  # None in a dry run
    saved_step: int = 0  # of the last checkpoint in the folder
    failed_saves: list[str] = field(default_factory=list)  # reasons for failed saves since then
    metrics: Figures = field(default_factory=dict)  # of the last evaluation
    recent: deque[Past] = field(default_factory=partial(deque, maxlen=20))  # the last steps with finite values
    updates: int = 0  # of this process
    unread: Unread | None = None  # the last update, as long as its result has not been read
    record: dict[str, float] = field(default_factory=dict)  # the figures of the last update whose result was read
    shapes: set[tuple[int, ...]] = field(default_factory=set)  # of the batches: (N, 3, H, W, G)
    examined: bool = False  # whether a gradient that was not finite has been examined
    unreadable: set[str] = field(default_factory=set)  # one line for each image of this process that was left out

    @property
    def files(self) -> RunFiles:
        return RunFiles(self.folder)

    def note_unreadable(self, problems: Iterable[str]) -> None:
        """Warns once about each image that could not be read and is a blank in the batch."""
        for problem in problems:
            if problem not in self.unreadable:
                self.unreadable.add(problem)
                self.log.warn(f"left out: {problem}")

    @property
    def data(self) -> str:
        return self.task.fingerprint(self.train_set)


def _generators() -> dict[str, torch.Tensor]:
    """The torch generators of this process; training does not use Python's or NumPy's generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
