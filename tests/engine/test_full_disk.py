"""What a training does when its disk is full."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from exact_resume import weights_hash

from resdet.appended_file import Appended
from resdet.config import Config
from resdet.engine.run_folder import RunFiles
from resdet.engine.train import train
from resdet.errors import UserError

ROOT = Path(__file__).parents[2]
ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size={size}k tmpfs "$1"
set +e
"$2" "$3" "${{@:4}}" train.steps=6 train.checkpoint_every=1 --output "$1/run" > "$1.out" 2> "$1.err"
echo $? > "$1.code"
find "$1" -name '*.tmp' > "$1.left"
mount -o remount,size=100m "$1"
"$2" "$3" "${{@:4}}" train.steps=6 train.checkpoint_every=1 --output "$1/run" --resume >> "$1.out" 2>> "$1.err2"
echo $? >> "$1.code"
cp -r "$1/run" "$1.copy"
"""


def test_a_line_that_the_disk_did_not_take_follows_without_loss_or_doubling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, room = os.write, [3]  # bytes

    def write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(descriptor, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", write)
    file = Appended(tmp_path / "metrics.jsonl")
    assert file.add("first\n") == "No space left on device"
    assert file.add("second\n") == "No space left on device"
    room[0] = 100
    assert file.add("third\n") is None
    file.close()
    assert file.path.read_text() == "first\nsecond\nthird\n"


def test_figures_that_cannot_be_written_are_one_line_and_a_resume_writes_them(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"

    def full(*_: Any, **__: Any) -> None:
        raise UserError(f"{run}: cannot be written (No space left on device); choose another --output")

    monkeypatch.setattr(RunFiles, "write_evaluation", full)
    with pytest.raises(UserError, match=r"No space left on device.*step 6 is saved, go on from it with --resume"):
        _ = train(nano, run)
    monkeypatch.undo()
    figures = train(nano, run, resume=True)
    written = json.loads((run / "eval.json").read_text())
    assert written["step"] == 6
    assert {name: written[name] for name in figures} == figures


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 40, 300, 700])
def test_a_full_disk_is_one_line_and_with_room_the_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, nano: Config, nano_arguments: list[str], size: int
):
    if subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this machine does not let a test mount a file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "-rm", "bash", "-c", ON_A_SMALL_DISK.format(size=size), "bash", str(disk), sys.executable]
    done = subprocess.run(
        [*command, str(ROOT / "tools/train.py"), *nano_arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as in this process, for sums of more threads have another order
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors = Path(f"{disk}.err").read_text().strip()
    assert Path(f"{disk}.code").read_text().split() == ["2", "0"], errors + Path(f"{disk}.err2").read_text()
    assert "No space left on device" in errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1, errors
    assert not Path(f"{disk}.left").read_text()
    nano.train.steps, nano.train.checkpoint_every = 6, 1
    _ = train(nano, tmp_path / "clean")
    assert weights_hash(Path(f"{disk}.copy"), 6) == weights_hash(tmp_path / "clean", 6)
