"""The package outside a clone: `python -m resdet`, and a wheel that carries configs, templates and types."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import resdet

ROOT = Path(__file__).parents[1]


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    command, environment = [sys.executable, "-m", "resdet", "--version"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == resdet.__version__


@pytest.mark.slow
def test_the_wheel_carries_every_config_template_and_module(tmp_path: Path) -> None:
    """Needs a package index for the build backend."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("resdet-*.whl")
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "resdet").rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    configs = {f"resdet/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert wanted | configs <= inside
    assert not any(name.startswith(("tests/", "configs/", "datasets/")) for name in inside)
