"""The measurement on a GPU: what was measured remains, whatever ends a part, and the page says what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resdet.analysis.gpu import plan
from resdet.analysis.gpu.child import PARTS
from resdet.analysis.gpu.environment import PROJECT, requirements
from resdet.analysis.gpu.page import page, write_page
from resdet.analysis.gpu.plan import LIMITS, SECONDS, measure
from resdet.analysis.gpu.record import JSON, PAGE, Record
from resdet.analysis.gpu.scale import SCALES
from resdet.errors import UserError

ROOT = Path(__file__).parents[3]


def read(folder: Path) -> dict[str, dict[str, object]]:
    return json.loads((folder / JSON).read_text())["parts"]


def test_the_plan_names_every_part_once_and_fits_the_time_with_the_compiler_last() -> None:
    assert list(LIMITS) == list(PARTS)
    assert list(LIMITS)[-1] == "compiled"
    assert sum(LIMITS.values()) - LIMITS["compiled"] <= 1.2 * SECONDS  # few parts need their whole limit
    assert SECONDS < 480


def test_the_page_in_docs_is_made_of_the_measurements_in_docs() -> None:
    measurements = ROOT / "docs" / JSON
    parts = json.loads(measurements.read_text())["parts"] if measurements.exists() else {}
    assert (ROOT / "docs" / PAGE).read_text() == page(parts)


def test_without_measurements_the_page_says_that_it_was_not_run() -> None:
    assert "**Not yet run on a GPU**" in page({})


def test_every_value_is_on_the_disk_at_once(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.begin("eager")
    record.row("eager", "Images a second", {"batch": 2, "resdet": 12.3456})
    assert read(tmp_path)["eager"]["tables"] == {"Images a second": [{"batch": 2, "resdet": 12.3456}]}
    text = (tmp_path / PAGE).read_text()
    assert "This part was cut off here." in text
    assert "| 2 | 12.35 |" in text
    Record(tmp_path).end("eager", "done", seconds=1.25)
    assert read(tmp_path)["eager"]["state"] == "done"
    assert "cut off" not in (tmp_path / PAGE).read_text()


@pytest.fixture
def as_part(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Parts last a tenth of a second at least, and are done in Python of one line."""
    monkeypatch.setattr(plan, "LEAST", 0.1)
    monkeypatch.setattr(plan, "GRACE", 0.0)
    return monkeypatch


def in_place_of_parts(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Every part runs this script, with the name of the part and the folder as its arguments."""
    whole = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return whole([sys.executable, "-c", script, *command[3:5]], **options)  # pyright: ignore

    monkeypatch.setattr(plan.subprocess, "Popen", start)


def test_an_error_in_a_part_is_recorded_and_the_others_are_measured(
    tmp_path: Path, as_part: pytest.MonkeyPatch
) -> None:
    in_place_of_parts(as_part, "import sys; sys.exit('no such kernel' if sys.argv[1] == 'kernels' else 0)")
    assert not measure(tmp_path, device="cpu", scale="small", seconds=450.0)
    parts = read(tmp_path)
    assert {name: part["state"] for name, part in parts.items()} == {
        name: "failed" if name == "kernels" else "done" for name in LIMITS
    }
    assert parts["kernels"]["problem"] == "no such kernel"
    assert "ended with an error: no such kernel." in (tmp_path / PAGE).read_text()


def test_a_part_that_hangs_is_ended_and_what_does_not_fit_is_left_out(
    tmp_path: Path, as_part: pytest.MonkeyPatch
) -> None:
    in_place_of_parts(as_part, "import time; time.sleep(60)")
    as_part.setattr(plan, "LIMITS", {"environment": 450.0, "tests": 450.0})
    assert not measure(tmp_path, device="cpu", scale="small", seconds=0.5)
    assert [part["state"] for part in read(tmp_path).values()] == ["cut", "left out"]


def test_an_unknown_part_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--only fast: no such part; the parts are environment, tests"):
        _ = measure(tmp_path / "out", device="cpu", scale="small", seconds=450.0, only=["fast"])
    assert not (tmp_path / "out").exists()


def test_the_first_part_names_the_machine_and_every_package(tmp_path: Path) -> None:
    assert measure(tmp_path, device="cpu", scale="small", seconds=900.0, only=["environment"]), (
        tmp_path / plan.LOG
    ).read_text()
    tables = read(tmp_path)["environment"]["tables"]
    assert isinstance(tables, dict)
    assert [row["package"] for row in tables["Packages"]] == [str(each) for each in requirements(PROJECT)]
    assert "missing" not in (tmp_path / PAGE).read_text()


@pytest.mark.parametrize("content", ["", "[]", '{"train/ratio": 1}'])
def test_a_file_of_something_else_makes_no_page(content: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    _ = file.write_text(content)
    with pytest.raises(UserError, match=r"no measurements of tools/on_gpu.py"):
        write_page(file, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_the_page_is_copied_with_its_measurements(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.begin("loader")
    record.end("loader", "done")
    write_page(tmp_path / JSON, tmp_path / "docs")
    assert (tmp_path / "docs" / PAGE).read_bytes() == (tmp_path / PAGE).read_bytes()
    assert (tmp_path / "docs" / JSON).read_bytes() == (tmp_path / JSON).read_bytes()


def test_both_scales_measure_the_same() -> None:
    assert set(SCALES) == {"full", "small"}
    assert SCALES["full"].batches == (16, 8, 2)


@pytest.mark.slow
def test_every_part_runs_at_a_tiny_size(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/on_gpu.py"), "--out", str(tmp_path), "--device", "cpu", "--small"]
    done = subprocess.run([*command, "--seconds", "3600"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + (tmp_path / plan.LOG).read_text()[-4000:]
    assert {part["state"] for part in read(tmp_path).values()} == {"done"}
