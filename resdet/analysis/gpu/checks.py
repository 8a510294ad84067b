"""Runs the tests that are marked `gpu`, and counts how they ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from resdet.analysis.gpu.record import Record
from resdet.analysis.gpu.scale import Setting
from resdet.errors import UserError

ROOT = Path(__file__).parents[3]  # of the clone
LOG = "pytest.log"
DEVICE = "RESDET_GPU_TESTS_DEVICE"  # where the tests run instead of a GPU
OUTCOME = re.compile(r"^(tests/\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)


def run_tests(record: Record, setting: Setting) -> None:
    """Records how each test ended, also of those that ran before the time was over. Raises UserError for a failure."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-v", "--tb=short", "-W", "default",
        "-p", "no:cacheprovider", "--durations=10"]  # fmt: skip
    log = record.folder / LOG
    environment = {**os.environ, DEVICE: setting.device}
    with log.open("wb") as file:
        child = subprocess.Popen(  # noqa: S603  # this Python, our own tests
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            _ = child.wait(max(1.0, setting.seconds_left))
        except subprocess.TimeoutExpired:
            child.kill()
            _ = child.wait()
    text = log.read_text(errors="replace")
    outcomes = Counter(outcome for _, outcome in OUTCOME.findall(text))
    record.row("tests", f"pytest -m gpu on {setting.device}", dict(outcomes))
    failed = [name for name, outcome in OUTCOME.findall(text) if outcome in ("FAILED", "ERROR")]
    if failed:
        record.text("tests", "Failed", "\n".join(failed))
        record.text("tests", "Messages", "\n".join(re.findall(r"^E  .*$", text, re.MULTILINE)[:40]))
    if child.returncode != 0:
        raise UserError(f"pytest ended with {child.returncode}, {len(failed)} tests failed; see {LOG}")
