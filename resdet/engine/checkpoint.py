"""Writes checkpoints atomically, and reads models back from them.

A checkpoint is a folder: model.safetensors (weights, and in its header everything that evaluation and prediction need),
state.pt (the other state that a resumed run needs) and manifest.json (sizes and sha256, written last).
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from resdet.config import Config, config_from_yaml, to_yaml
from resdet.engine.run_folder import BEST, CHECKPOINTS, LAST, MANIFEST, MODEL, STATE, RunFiles
from resdet.errors import UserError
from resdet.files import read_regular, sync_folder, write_synced
from resdet.models.build.conventions import contract_of
from resdet.models.normalized import Normalization
from resdet.text import first_few
from resdet.version import __version__
from resdet.weights import read_safetensors
from resdet.weights.contract import WeightContract
from resdet.weights.read import load_torch

LARGEST_MANIFEST = 100_000  # bytes


@dataclass(frozen=True)
class ModelFile:
    """A model.safetensors: weights and what is needed to use them."""

    weights: dict[str, Tensor]
    config: Config
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]  # of the data set, by label
    step: int
    contract: WeightContract | None  # the mean and deviation of its images among the rest; None: the config's


def model_metadata(
    config: Config, class_names: tuple[str, ...], category_ids: tuple[int, ...], normalization: Normalization
) -> dict[str, str]:
    """The header of a model file, whose contract states the model's `normalization`; the step is added on saving."""
    return {
        **contract_of(config, class_names, f"resdet {__version__}", normalization).to_metadata(),
        "format": "resdet 1",
        "resdet_version": __version__,
        "config": to_yaml(config),
        "class_names": json.dumps(class_names),
        "category_ids": json.dumps(category_ids),
    }


def checkpoint_path(run: Path, step: int) -> Path:
    return run / CHECKPOINTS / f"step_{step:08d}"


def save_checkpoint(
    run: Path, *, step: int, weights: Mapping[str, Tensor], metadata: Mapping[str, str], state: Mapping[str, Any]
) -> Path:
    """Writes a checkpoint under a temporary name and renames it when it is completely on the disk.

    Raises OSError if it cannot be written; earlier checkpoints are not changed.
    """
    target = checkpoint_path(run, step)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(run)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.mkdir()
    try:
        sync_folder(target.parent.parent)
        contents = {MODEL: _model_bytes(weights, {**metadata, "step": str(step)}), STATE: _state_bytes(state)}
        for name, data in contents.items():
            write_synced(temporary / name, data)
        files = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in contents.items()
        }
        write_synced(temporary / MANIFEST, json.dumps({"step": step, "files": files}, indent=1).encode())
        sync_folder(temporary)
        if target.exists():  # a damaged checkpoint, or the same step of an earlier attempt
            _remove(target)
        temporary.rename(target)
        sync_folder(target.parent)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def remove_leftovers(run: Path) -> None:
    """Removes files and folders that a killed process left partly written or partly deleted."""
    for leftover in (run / CHECKPOINTS).glob(".*.tmp"):
        shutil.rmtree(leftover)


def finish_leftovers(run: Path) -> None:
    """Gives a checkpoint its name that a killed process had completely written: it may have removed another one of the
    same step before. Removes all other leftovers.
    """
    for leftover in sorted((run / CHECKPOINTS).glob(".step_*.tmp")):
        target = leftover.with_name(leftover.name.split(".")[1])
        if not target.exists() and damage(leftover) is None:
            leftover.rename(target)
    remove_leftovers(run)


def prune_checkpoints(run: Path, *, step: int, keep: int) -> None:
    """Keeps the newest `keep` checkpoints up to `step`, and the best one."""
    old = [path for path in checkpoints(run) if path.name <= checkpoint_path(run, step).name]
    for path in old[:-keep]:
        if path.name != RunFiles(run).best():
            _remove(path)


def checkpoints(run: Path) -> list[Path]:
    """All checkpoints of a run, oldest first, whether sound or damaged."""
    return sorted(path for path in (run / CHECKPOINTS).glob("step_*") if path.is_dir())


def newest_checkpoint(run: Path) -> tuple[Path, list[str]]:
    """The newest checkpoint whose checksums match, and a line for each one skipped.

    Raises UserError if the run has none.
    """
    skipped = []
    for path in reversed(checkpoints(run)):
        fault = damage(path)
        if fault is None:
            return path, skipped
        skipped.append(f"skipped {path}: {fault}")
    reason = "; ".join(skipped) if skipped else "it has no checkpoints"
    raise UserError(f"{run}: nothing to load: {reason}; give another run or checkpoint")


def damage(checkpoint: Path) -> str | None:
    """The damage of a checkpoint's files; None if they match the manifest."""
    try:
        manifest = json.loads(read_regular(checkpoint / MANIFEST, largest=LARGEST_MANIFEST))
        for name in (MODEL, STATE):
            expected = manifest["files"][name]
            size = (checkpoint / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes, {expected['bytes']} were written"
            with (checkpoint / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    return f"{name} has changed since it was written (sha256)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError) as error:
        return f"{MANIFEST} is not readable ({type(error).__name__})"
    return None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The optimizer, generators and counters for a resumed run; only plain data and tensors are accepted.

    Raises UserError, in one line, for any other file.
    """
    path = checkpoint / STATE
    state = load_torch(path)
    if not isinstance(state, dict) or "step" not in state:
        raise UserError(f"{path}: not a state that resdet wrote")
    return state


def is_named(path: Path) -> bool:
    """Whether `path` is RUN/best or RUN/last, which refer to a checkpoint of that run."""
    return path.name in (BEST, LAST) and not path.is_dir() and (path.parent / CHECKPOINTS).is_dir()


def best_or_last(path: Path) -> Path:
    """The checkpoint to which RUN/best refers; for RUN/last, the run itself, whose newest sound checkpoint is meant."""
    run = path.parent
    if path.name == LAST:
        return run
    names = [checkpoint.name for checkpoint in checkpoints(run)]
    name = RunFiles(run).best()
    if name not in names:
        found = "no evaluation had a figure to choose by" if name is None else f"it names {name!r}, which is not there"
        raise UserError(f"{path}: no best checkpoint: {found}; give {run / LAST}, the newest one")
    return run / CHECKPOINTS / name


def set_aside(run: Path, *, after: int) -> list[str]:
    """Renames the checkpoints after a step, because the run continues from that step; returns their new names.

    If one of them was the best, the run has no best checkpoint until the next evaluation.
    """
    abandoned = [path for path in checkpoints(run) if path.name > checkpoint_path(run, after).name]
    names: list[str] = []
    for path in reversed(abandoned):
        numbered = (path.with_name(f"abandoned_{number}_{path.name}") for number in itertools.count(1))
        target = next(candidate for candidate in numbered if not candidate.exists())
        path.rename(target)
        names.append(target.name)
    if RunFiles(run).best() in {path.name for path in abandoned}:
        (run / BEST).unlink()
    return names


def find_model_file(path: Path) -> tuple[Path, list[str]]:
    """The model file of a run, a checkpoint or a file, and a line for each checkpoint skipped.

    RUN/best and RUN/last refer to checkpoints too. Raises UserError if there is none, or if its checkpoint is damaged.
    """
    if is_named(path):
        return find_model_file(best_or_last(path))
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give a run, a checkpoint or a model.safetensors")
    if path.is_dir() and (path / CHECKPOINTS).is_dir():
        checkpoint, skipped = newest_checkpoint(path)
        return checkpoint / MODEL, skipped
    model = path / MODEL if path.is_dir() else path
    if path.is_dir() and not model.exists() and not (path / MANIFEST).exists():
        raise UserError(f"{path}: neither a run nor a checkpoint; give a folder that tools/train.py wrote")
    if (model.parent / MANIFEST).exists() and (fault := damage(model.parent)):
        raise UserError(f"{model.parent}: damaged checkpoint: {fault}; give another one")
    return model, []


def find_best_model_file(path: Path) -> tuple[Path, list[str]]:
    """As `find_model_file`, but a run refers to its best checkpoint.

    Without one (no evaluation had a figure), and if it is damaged, the newest sound one is taken, and a line says so.
    """
    if not (path / CHECKPOINTS).is_dir() or RunFiles(path).best() is None:
        return find_model_file(path)
    try:
        return find_model_file(path / BEST)
    except UserError as error:
        file, skipped = find_model_file(path)
        return file, [f"{error}; the newest is taken", *skipped]


def read_model_file(path: Path) -> ModelFile:
    """The weights and the header of a model file. Raises UserError, in one line, for any other file."""
    weights, header = read_safetensors(path)
    try:
        class_names, category_ids = json.loads(header["class_names"]), json.loads(header["category_ids"])
        config_text, step = header["config"], int(header["step"])
    except KeyError as missing:
        raise UserError(f"{path}: its header has no {missing}; give a model file that resdet wrote") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: its header is not one that resdet wrote") from None
    if not _are(class_names, str) or not _are(category_ids, int) or not 0 < len(class_names) == len(category_ids):
        raise UserError(f"{path}: its header must list as many category_ids as class_names")
    config = config_from_yaml(config_text, f"{path} (header)")
    contract = WeightContract.from_metadata(header, str(path))
    return ModelFile(weights, config, tuple(class_names), tuple(category_ids), step, contract)


def without_weights(config: Config) -> Config:
    """The config of a model whose weights come from a checkpoint, without other weights to read or download."""
    backbone = replace(config.model.backbone, weights=None)
    return replace(config, model=replace(config.model, backbone=backbone, weights=None))


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Loads all weights of a model; raises UserError that names the first tensors that do not fit, or that are not
    finite: such a model finds nothing, and its figures would be those of a bad one.
    """
    own = model.state_dict()
    wrong = [
        *(f"{name} is missing" for name in own if name not in weights),
        *(f"{name} is not part of the model" for name in weights if name not in own),
        *(
            f"{name} has shape {list(weights[name].shape)}, the model {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in weights and weights[name].shape != tensor.shape
        ),
    ]
    if wrong:
        raise UserError(f"{source}: the weights do not fit the model: {first_few(wrong, 3, separator='; ')}")
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(
            f"{source}: {len(broken)} of {len(weights)} tensors are not finite ({first_few(broken, 3)}), so the"
            " training diverged; take an earlier checkpoint"
        )
    _ = model.load_state_dict(dict(weights))


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _model_bytes(weights: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return safetensors.torch.save(tensors, metadata)


def _state_bytes(state: Mapping[str, Any]) -> bytes:
    # Serialized in memory first, because torch.save to a full disk raises no OSError.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _remove(checkpoint: Path) -> None:
    """Renames before it deletes, so that a kill in between leaves a leftover and not a partial checkpoint."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.{os.getpid()}.tmp")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)
