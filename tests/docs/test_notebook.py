"""docs/first_steps.ipynb runs from its first cell to its last, and what it shows is what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from notebook import NOTEBOOK, executed, neutral, outputs_of

TEXT = NOTEBOOK.read_text(encoding="utf-8")
CONTENT = json.loads(TEXT)
SHORTER = json.loads(TEXT.replace("train.steps=300", "train.steps=12").replace("train_images=100", "train_images=16"))


def test_a_cell_gives_what_it_prints_and_its_last_value() -> None:
    printed, value = outputs_of("print('a')\nx = 3\nx + 1", {}, 1)
    assert printed["text"] == ["a\n"]
    assert value["data"] == {"text/plain": ["4"]}
    assert outputs_of("x = 3", {}, 1) == []
    with pytest.raises(ZeroDivisionError):
        _ = outputs_of("1 / 0", {}, 1)


def test_the_notebook_trains_a_detector_and_shows_what_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CONTENT != SHORTER
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in executed(SHORTER)["cells"] if cell["cell_type"] == "code"]
    assert (tmp_path / "runs/first/report.html").is_file()
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])


def test_the_notebook_names_no_place_of_the_machine_that_ran_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path))
    assert neutral(f"train: {tmp_path}/shapes: 3 images") == "train: ~/.cache/resdet/shapes: 3 images"
    assert [place for place in ("/tmp/", "/home/", "/root/", "/work/") if place in TEXT] == []


def test_the_outputs_in_the_file_are_those_of_its_cells() -> None:
    """Their kinds: what is drawn and computed differs in the last digits from machine to machine."""
    for cell in CONTENT["cells"]:
        if cell["cell_type"] == "code":
            assert cell["execution_count"] is not None
            assert all(output["output_type"] in ("stream", "execute_result") for output in cell["outputs"])
    assert NOTEBOOK.stat().st_size < 300_000
