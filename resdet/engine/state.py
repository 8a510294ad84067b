"""What a training run works with, and its state: saved in a checkpoint, restored to the last bit."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resdet.config import Config
from resdet.data.sets.labelled import LabelledImages
from resdet.engine.checkpoint import load_weights, read_model_file, read_state
from resdet.engine.classify import ImageSet
from resdet.engine.distributed import World
from resdet.engine.log import RunLog
from resdet.engine.resources import Usage
from resdet.engine.run_folder import MODEL, RunFiles
from resdet.engine.signals import StopRequest
from resdet.errors import UserError

# Keys that a resumed run may change without a word, and those it may change with a warning. Any other change
# would make it another experiment.
FREE = (
    "train.log_every", "train.checkpoint_every", "train.keep_checkpoints", "train.tensorboard", "data.workers",
    "eval.every", "eval.batch_size", "eval.backend",
)  # fmt: skip
WARNED = ("train.steps", "train.device", "train.amp", "train.compile", "train.channels_last", "data.root")

Metrics = dict[str, float | None]


@dataclass
class TrainState:
    """Everything that training changes; all of it is in a checkpoint."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0  # updates made
    best: float | None = None  # the highest bbox/AP (top1/accuracy) of an evaluation
    best_step: int = 0
    evaluated: int = 0  # the step of the last evaluation
    skipped: int = 0  # updates in a row left out for a gradient that was not finite

    def snapshot(self, data: str, world: World) -> dict[str, Any]:
        """What a checkpoint holds besides the weights: tensors and plain values only."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "evaluated": self.evaluated,
            "skipped": self.skipped,
            "generators": world.gather(_generators()),
            "world_size": world.size,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "data": data,
        }

    def restore(self, checkpoint: Path, config: Config, data: str, world: World) -> list[str]:
        """Continues from a checkpoint; returns a warning for each thing that makes the results differ.

        Raises UserError, naming the keys, when the checkpoint is of another experiment.
        """
        saved, file = read_state(checkpoint), read_model_file(checkpoint / MODEL)
        warnings = config_warnings(file.config, config, checkpoint)
        if saved["data"] != data:
            raise UserError(
                f"{checkpoint}: was trained on other data (the images or annotations of data.train have changed);"
                " train it in a new --output with model.weights set to its model.safetensors"
            )
        load_weights(self.model, file.weights, str(checkpoint))
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.best, self.best_step = saved["step"], saved["best"], saved["best_step"]
        self.evaluated, self.skipped = saved["evaluated"], saved["skipped"]
        if world.rank < len(saved["generators"]):
            _set_generators(saved["generators"][world.rank])
        here = {"world_size": world.size, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}
        return warnings + [
            f"the run had {name}={saved[name]} and goes on with {value}: results agree up to rounding"
            for name, value in here.items()
            if saved[name] != value
        ]


@dataclass
class Run:
    """What training reads, writes and asks, and what it remembers until the process ends."""

    config: Config
    folder: Path
    world: World
    device: torch.device
    train_set: ImageSet
    val_set: ImageSet
    log: RunLog
    stop: StopRequest
    usage: Usage
    saved_step: int = 0  # of the last checkpoint in the folder
    failed_saves: list[str] = field(default_factory=list)  # reasons, since then
    metrics: Metrics = field(default_factory=dict)  # of the last evaluation
    unreadable: set[str] = field(default_factory=set)  # a line for each image of this process that was left out

    @property
    def files(self) -> RunFiles:
        return RunFiles(self.folder)

    def note_unreadable(self, problems: tuple[str, ...]) -> None:
        """Warns of each image that stands in a batch as a blank, once."""
        for problem in problems:
            if problem not in self.unreadable:
                self.unreadable.add(problem)
                self.log.warn(f"left out: {problem}")

    @property
    def data(self) -> str:
        return data_fingerprint(self.train_set)


def data_fingerprint(dataset: ImageSet) -> str:
    """Changes with the images' ids or sizes, the boxes and the classes, whatever folder they lie in."""
    if isinstance(dataset, LabelledImages):
        return dataset.fingerprint
    digest = hashlib.sha256("\0".join(dataset.class_names).encode())
    for array in (dataset.image_ids, dataset.heights, dataset.widths, dataset.offsets, dataset.boxes, dataset.labels):
        digest.update(array.tobytes())
    return digest.hexdigest()


def config_warnings(old: Config, new: Config, source: Path) -> list[str]:
    """A line for each key that changed with consequences; raises UserError for keys that must not change."""
    before, after = flat(asdict(old)), flat(asdict(new))
    changed = [key for key in after if before.get(key) != after[key] and key not in FREE]
    forbidden = [f"{key}={after[key]} (was {before.get(key)})" for key in changed if key not in WARNED]
    if forbidden:
        raise UserError(
            f"{source}: was trained with another config: {', '.join(forbidden)};"
            " resume with the same one, or start a new --output"
        )
    return [f"{key} was {before[key]} and is now {after[key]}" for key in changed]


def flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """{"train.steps": 90000, ...}"""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return leaves


def _generators() -> dict[str, torch.Tensor]:
    """Torch's generators of this process; nothing in training draws from Python's or NumPy's."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
