"""The scripts that count faults run and find none, with small numbers; docs/reliability.md has those of long runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "figures"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("inputs.py", ["annotations", "300"]),
        ("inputs.py", ["images", "200"]),
        ("inputs.py", ["configs", "100"]),
        ("inputs.py", ["weights", "200"]),
        ("kills.py", ["3"]),
        ("signals.py", ["4"]),
        ("disk.py", ["7"]),
        ("memory.py", ["300"]),
        ("epochs.py", ["0.02"]),
    ],
)
def test_no_input_and_no_fault_is_a_crash_a_hang_or_a_loss(script: str, arguments: list[str]):
    command = [sys.executable, str(FOLDER / script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
