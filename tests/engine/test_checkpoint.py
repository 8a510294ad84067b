"""A checkpoint is whole or absent: whatever happens to the newest, the one before it loads."""

import errno
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch

from resdet import files
from resdet.config import Config
from resdet.engine import checkpoint
from resdet.engine.checkpoint import (
    MANIFEST,
    MODEL,
    STATE,
    checkpoints,
    damage,
    model_metadata,
    newest_checkpoint,
    prune_checkpoints,
    read_model_file,
    read_state,
    save_checkpoint,
)  # fmt: skip
from resdet.engine.run_folder import RunFiles
from resdet.engine.saved_models import built, load_model, read_models
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.weights.contract import METADATA_KEY


def saved(run: Path, step: int, value: float = 0.0) -> Path:
    weights = {"w": torch.full((3, 4), value + step), "n": torch.tensor(step)}
    return save_checkpoint(run, step=step, weights=weights, metadata={"config": "x"}, state={"step": step})


def test_a_checkpoint_is_three_files_and_verifies(tmp_path: Path):
    path = saved(tmp_path, 500)
    assert path == tmp_path / "checkpoints/step_00000500"
    assert sorted(file.name for file in path.iterdir()) == sorted([MODEL, STATE, MANIFEST])
    assert damage(path) is None
    assert read_state(path) == {"step": 500}


def truncate(path: Path) -> None:
    data = path.read_bytes()
    _ = path.write_bytes(data[: len(data) // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    _ = path.write_bytes(data)


def empty(path: Path) -> None:
    _ = path.write_bytes(b"")


@pytest.mark.parametrize("name", [MODEL, STATE, MANIFEST])
@pytest.mark.parametrize("harm", [truncate, flip_a_bit, empty, Path.unlink])
def test_a_damaged_newest_checkpoint_is_skipped_by_name_and_the_one_before_is_taken(tmp_path: Path, name: str, harm):
    older, newer = saved(tmp_path, 1), saved(tmp_path, 2)
    harm(newer / name)
    if damage(newer) is None:
        assert name == MANIFEST, "only a manifest has bits that mean nothing"
        return
    path, skipped = newest_checkpoint(tmp_path)
    assert path == older
    assert len(skipped) == 1
    assert "step_00000002" in skipped[0]


def test_no_sound_checkpoint_is_an_error_that_says_why(tmp_path: Path):
    empty(saved(tmp_path, 1) / MODEL)
    with pytest.raises(UserError, match=r"step_00000001: model.safetensors has 0 bytes"):
        _ = newest_checkpoint(tmp_path)


def test_saving_again_replaces_a_damaged_checkpoint_of_the_same_step(tmp_path: Path):
    truncate(saved(tmp_path, 1) / MODEL)
    assert damage(saved(tmp_path, 1)) is None


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path):
    leftover = tmp_path / "checkpoints/.step_00000001.tmp"
    leftover.mkdir(parents=True)
    _ = (leftover / MODEL).write_bytes(b"half")
    _ = saved(tmp_path, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000002"]


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path):
    for step in (1, 2, 3, 4):
        _ = saved(tmp_path, step)
    _ = (tmp_path / "best").write_text("step_00000001\n")
    prune_checkpoints(tmp_path, step=4, keep=2)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["1", "3", "4"]


def test_pruning_leaves_later_steps_alone_after_a_resume_from_an_earlier_one(tmp_path: Path):
    for step in (1, 2, 9):
        _ = saved(tmp_path, step)
    prune_checkpoints(tmp_path, step=2, keep=1)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["2", "9"]


WRITE_POINTS = 6  # synced: the parent folder, three files, the folder, the parent folder again


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("point", range(WRITE_POINTS))
def test_a_disk_that_fails_at_any_point_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int, reason: int
):
    older = saved(tmp_path, 1)
    calls = iter(range(100))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == point:
            raise OSError(reason, os.strerror(reason))
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(reason)):
        _ = saved(tmp_path, 2)
    monkeypatch.undo()
    assert damage(older) is None
    path, _ = newest_checkpoint(tmp_path)
    named = point == WRITE_POINTS - 1  # the new one already has its name, only the folder is not synced
    assert path.name == ("step_00000002" if named else "step_00000001")
    assert damage(saved(tmp_path, 3)) is None, "and the next save succeeds"


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from resdet.engine.checkpoint import newest_checkpoint, read_state, save_checkpoint

run, kills = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
weights = {str(i): torch.randn(1000, 100) for i in range(10)}
step, halves = 0, 0
for attempt in range(kills):
    child = os.fork()
    if not child:
        while True:
            step += 1
            save_checkpoint(run, step=step, weights=weights, metadata={"config": ""}, state={"step": step})
    while not (run / "checkpoints").is_dir() or not list((run / "checkpoints").glob("step_*")):
        time.sleep(0.001)
    time.sleep(random.Random(attempt).uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    halves += bool(list((run / "checkpoints").glob(".*.tmp")))
    path, skipped = newest_checkpoint(run)
    assert not skipped, skipped
    step = read_state(path)["step"]
    assert path.name == f"step_{step:08d}"
print(halves)
"""


def test_sigkill_in_the_middle_of_saving_leaves_a_sound_checkpoint(tmp_path: Path):
    """What has a final name is whole, and the next process saves over what was left half written."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "20"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5, "too few of the kills fell into a save to show anything"


def whole_model(folder: Path, config: Config) -> Path:
    model = build_model(config.model, 2)
    names = model_metadata(config, ("cat", "dog"), (17, 90), model.normalization)
    return save_checkpoint(folder, step=3, weights=model.state_dict(), metadata=names, state={"step": 3})


def test_a_model_loads_from_its_run_its_checkpoint_and_its_file_alone(tmp_path: Path, nano: Config):
    path = whole_model(tmp_path, nano)
    alone = tmp_path / "alone.safetensors"
    _ = alone.write_bytes((path / MODEL).read_bytes())
    for source in (tmp_path, path, path / MODEL, alone):
        model, config, class_names, category_ids = load_model(source)
        assert (config, class_names, category_ids) == (nano, ("cat", "dog"), (17, 90))
        assert not model.training
    saved = read_model_file(alone)
    assert saved.step == 3
    assert saved.contract is not None
    assert saved.contract.channel_order == "RGB"


def test_the_contract_of_a_model_file_says_how_its_images_are_normalized_and_the_config_stays(
    tmp_path: Path, nano: Config
):
    model = build_model(nano.model, 2)
    model.normalize_by((100.0, 110.5, 120.0), (1.0, 2.0, 57.375))
    names = model_metadata(nano, ("cat", "dog"), (17, 90), model.normalization)
    _ = save_checkpoint(tmp_path, step=3, weights=model.state_dict(), metadata=names, state={"step": 3})
    loaded, config, *_ = load_model(tmp_path)
    assert config.model.pixel_mean is None
    assert isinstance(loaded, RCNN)
    assert loaded.normalization == model.normalization
    (overridden,) = read_models([tmp_path], ["model.pixel_mean=[1, 2, 3]"])
    assert built(overridden).normalization == ([1, 2, 3], [1, 2, 57.375])


def test_a_file_of_an_earlier_version_has_the_mean_in_its_config_and_loads_too(tmp_path: Path, nano: Config):
    model = build_model(nano.model, 2)
    nano.model.pixel_mean, nano.model.pixel_std = [100.0, 110.5, 120.0], [1.0, 2.0, 57.375]
    names = model_metadata(nano, ("cat", "dog"), (17, 90), (nano.model.pixel_mean, nano.model.pixel_std))
    for contract in ({METADATA_KEY: names.pop(METADATA_KEY)}, {}):
        _ = save_checkpoint(tmp_path, step=3, weights=model.state_dict(), metadata=names | contract, state={"step": 3})
        loaded = load_model(tmp_path)[0]
        assert isinstance(loaded, RCNN)
        assert loaded.normalization == ([100.0, 110.5, 120.0], [1.0, 2.0, 57.375])


class Planted:
    def __reduce__(self):
        return os.system, (f"touch {Planted.canary}",)

    canary = ""


def hostile_files(folder: Path) -> dict[str, bytes]:
    Planted.canary = str(folder / "canary")
    overlap = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        }
    ).encode()
    return {
        "a pickle": pickle.dumps(Planted()),
        "a huge header": struct.pack("<Q", 200_000_000) + b"{}",
        "overlapping tensors": struct.pack("<Q", len(overlap)) + overlap + bytes(12),
        "no header of ours": struct.pack("<Q", 2) + b"{}",
        "empty": b"",
        "text": b"<html>404</html>",
    }


@pytest.mark.parametrize(
    "kind", ["a pickle", "a huge header", "overlapping tensors", "no header of ours", "empty", "text"]
)
def test_a_hostile_model_file_is_one_line_and_has_no_effect(tmp_path: Path, kind: str):
    path = tmp_path / "model.safetensors"
    _ = path.write_bytes(hostile_files(tmp_path)[kind])
    with pytest.raises(UserError, match=r"model.safetensors: .*") as error:
        _ = load_model(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "canary").exists()


def test_a_hostile_state_is_refused_without_effect(tmp_path: Path):
    path = saved(tmp_path, 1)
    Planted.canary = str(tmp_path / "canary")
    _ = (path / STATE).write_bytes(pickle.dumps(Planted()))
    with pytest.raises(UserError, match=r"state.pt"):
        _ = read_state(path)
    assert not (tmp_path / "canary").exists()


def test_a_state_that_would_grow_when_it_is_unpacked_is_refused(tmp_path: Path):
    path = saved(tmp_path, 1)
    torch.save({"step": 1, "zeros": torch.zeros(1_000_000)}, tmp_path / "plain.pt")
    with ZipFile(tmp_path / "plain.pt") as plain, ZipFile(path / STATE, "w", ZIP_DEFLATED) as packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    assert (path / STATE).stat().st_size < 20_000
    with pytest.raises(UserError, match=r"state.pt: refused, its members are compressed"):
        _ = read_state(path)


def test_a_truncated_model_file_is_one_line(tmp_path: Path, nano: Config):
    path = whole_model(tmp_path, nano)
    truncate(path / MODEL)
    with pytest.raises(UserError, match=r"damaged checkpoint: model.safetensors has"):
        _ = load_model(path)


def test_weights_that_do_not_fit_are_named(tmp_path: Path, nano: Config):
    assert nano.model.box_head is not None
    nano.model.box_head.fc_dim = 16
    path = whole_model(tmp_path, nano)
    nano.model.box_head.fc_dim = 32
    with pytest.raises(UserError, match=r"roi_heads.*has shape"):
        checkpoint.load_weights(build_model(nano.model, 2), read_model_file(path / MODEL).weights, "model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_diverged_is_refused_instead_of_scoring_0(tmp_path: Path, nano: Config, value: float):
    weights = build_model(nano.model, 2).state_dict()
    weights["backbone.conv1.weight"].view(-1)[0] = value
    with pytest.raises(
        UserError, match=r"1 of \d+ tensors are not finite \(backbone\.conv1\.weight\), so the training"
    ):
        checkpoint.load_weights(build_model(nano.model, 2), weights, "model")


def test_a_missing_path_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match=r"no such file or folder"):
        _ = load_model(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"neither a run nor a checkpoint"):
        _ = load_model(tmp_path)


def test_a_run_s_best_and_last_stand_for_their_checkpoints(tmp_path: Path):
    first, second = saved(tmp_path, 1), saved(tmp_path, 2)
    assert checkpoint.find_model_file(tmp_path / "last")[0] == second / MODEL
    with pytest.raises(UserError, match=r"best: no best checkpoint: no evaluation had a figure .*last, the newest one"):
        _ = checkpoint.find_model_file(tmp_path / "best")
    RunFiles(tmp_path).write_best(first)
    assert checkpoint.find_model_file(tmp_path / "best")[0] == first / MODEL
    for name in ("step_00000009", "../../elsewhere", ""):
        _ = (tmp_path / "best").write_text(name)
        with pytest.raises(UserError, match=r"best: no best checkpoint: it names .* which is not there"):
            _ = checkpoint.find_model_file(tmp_path / "best")


def test_a_file_called_best_outside_of_a_run_is_a_file(tmp_path: Path):
    _ = (tmp_path / "best").write_bytes((saved(tmp_path / "run", 1) / MODEL).read_bytes())
    assert checkpoint.find_model_file(tmp_path / "best")[0] == tmp_path / "best"
    with pytest.raises(UserError, match="last: no such file or folder"):
        _ = checkpoint.find_model_file(tmp_path / "last")


def test_checkpoints_that_are_set_aside_twice_keep_both(tmp_path: Path):
    for _ in range(2):
        for step in (1, 2, 3):
            _ = saved(tmp_path, step)
        RunFiles(tmp_path).write_best(checkpoint.checkpoint_path(tmp_path, 3))
        _ = checkpoint.set_aside(tmp_path, after=1)
        assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step_00000001"]
        assert RunFiles(tmp_path).best() is None
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("abandoned_*")) == [
        f"abandoned_{attempt}_step_0000000{step}" for attempt in (1, 2) for step in (2, 3)
    ]
