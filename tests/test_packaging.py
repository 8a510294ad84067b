"""The package outside a clone: sdist and wheel carry everything, and the wheel works in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import resdet

ROOT = Path(__file__).parents[1]


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    command, environment = [sys.executable, "-m", "resdet", "--version"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == resdet.__version__


def test_the_citation_and_the_changes_are_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == resdet.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {resdet.__version__}" in changes


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; it must end well. PYTHONPATH is that of nobody."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words, environment = [str(part) for part in command], {**clean, **environment}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist, and of the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    _ = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.mark.slow
def test_the_wheel_carries_every_config_template_and_module(built: Path) -> None:
    (wheel,) = built.glob("resdet-*.whl")
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "resdet").rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    configs = {f"resdet/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert wanted | configs <= inside
    assert not any(name.startswith(("tests/", "configs/", "datasets/", "docs/")) for name in inside)


@pytest.mark.slow
def test_the_sdist_carries_what_a_clone_has(built: Path) -> None:
    (sdist,) = built.glob("resdet-*.tar.gz")
    with tarfile.open(sdist) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    tracked = (
        run("git", "ls-files", cwd=ROOT).splitlines()
        if (ROOT / ".git").exists()
        else ["README.md", "tests/conftest.py"]
    )
    hidden = {name for name in tracked if name.startswith(".")}
    assert set(tracked) - hidden <= inside
    assert not any(name.startswith((".venv", "runs", "shared")) for name in inside)


@pytest.fixture(scope="module")
def elsewhere(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; it finds the packages that resdet needs in the environment of the tests, so that
    nothing is installed twice. Lines of .pth files there, such as that of an editable resdet, are not followed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv/bin/python"
    place = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    _ = (place / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = built.glob("resdet-*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python)
    _ = run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=folder)
    return folder


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment_outside_the_clone(elsewhere: Path) -> None:
    python, command = elsewhere / "venv/bin/python", elsewhere / "venv/bin/resdet"
    where = run(python, "-c", "import resdet; print(resdet.__file__)", cwd=elsewhere).strip()
    assert Path(where).is_relative_to(elsewhere)
    assert "quickstart" in run(command, "configs", cwd=elsewhere)
    assert "usage: resdet COMMAND" in run(command, "--help", cwd=elsewhere)
    assert run(python, "-m", "resdet", "--version", cwd=elsewhere).strip() == resdet.__version__
    assert "complete -F" in run(command, "completion", "bash", cwd=elsewhere)
    here = {"RESDET_CACHE": str(elsewhere / "cache"), "NO_ALBUMENTATIONS_UPDATE": "1"}
    printed = run(command, "train", "nano", "train.steps=2", "--output", "run", cwd=elsewhere, **here)
    assert "bbox/AP" in printed
    assert (elsewhere / "run/report.html").is_file()
    assert (elsewhere / "run/checkpoints/step_00000002").is_dir()
