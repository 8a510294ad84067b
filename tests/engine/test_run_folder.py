"""A run's folder: whole or absent files, read back as they were written, and names that nothing else knows."""

import ast
import json
from pathlib import Path

import pytest
import torch

import resdet
from resdet.config import Config
from resdet.engine import run_folder
from resdet.engine.resources import Usage, peak_memory, peak_resident_memory, rusage_unit
from resdet.engine.run_folder import RunFiles, read_run
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults
from resdet.version import __version__

PACKAGE = Path(resdet.__file__).parent
NAMES = {
    getattr(run_folder, name)
    for name in (
        "CONFIG", "METRICS", "LOG", "FIGURES", "PREDICTIONS", "DATA", "RESOURCES", "BAD_STEP", "REPORT", "DRAWINGS",
        "CHECKPOINTS", "STATE", "MANIFEST",
    )
}  # fmt: skip
# The same words for other things: where torch.hub keeps what it has downloaded, and the label of a printed path.
FOREIGN = {
    ("weights/sources.py", "checkpoints"), ("engine/published.py", "checkpoints"), ("cli/train.py", "drawings"),
}  # fmt: skip


def test_no_other_file_knows_the_name_of_a_file_of_a_run():
    """As a literal of its own; help and messages may name files. MODEL and BEST are words of others too."""
    found = {
        (path.relative_to(PACKAGE).as_posix(), node.value)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.strip("/") in NAMES and path.name != "run_folder.py"
    }
    assert found == FOREIGN


def test_an_evaluation_is_read_back_as_it_was_written(tmp_path: Path):
    files, results = RunFiles(tmp_path / "new" / "run"), CocoResults()
    figures = {"bbox/AP": 0.1 + 0.2, "bbox/AP/猫": None}
    files.write_evaluation(figures, step=7, backend="hotcoco", results=results)
    assert files.written_figures() == figures
    assert json.loads(files.figures.read_text()) == {"resdet": __version__, **figures, "backend": "hotcoco", "step": 7}
    assert json.loads(files.predictions.read_text()) == []


def test_a_run_is_finished_when_its_last_evaluation_and_detections_are_there(tmp_path: Path, nano: Config):
    files = RunFiles(tmp_path)
    assert not files.is_finished(nano)
    files.write_evaluation({}, step=nano.train.steps)
    assert not files.is_finished(nano)
    files.write_evaluation({}, step=nano.train.steps - 1, results=CocoResults())
    assert not files.is_finished(nano)
    files.write_evaluation({}, step=nano.train.steps)
    assert files.is_finished(nano)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b'{"step": 3}'])
def test_damaged_figures_are_one_line(tmp_path: Path, content: bytes):
    files = RunFiles(tmp_path)
    _ = files.figures.write_bytes(content)
    with pytest.raises(UserError, match=r"eval\.json: (eval\.json: is damaged|has no figures); resdet evaluate"):
        _ = files.written_figures()


def test_a_folder_that_cannot_be_written_is_the_users_mistake(tmp_path: Path, nano: Config):
    _ = (tmp_path / "file").write_text("")
    files = RunFiles(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="cannot be written"):
        files.begin(nano, {}, 0)
    with pytest.raises(UserError, match="cannot be written"):
        files.write_evaluation({}, step=1)


def test_every_run_says_what_it_took(tmp_path: Path, nano: Config):
    nano.train.device = "cpu"
    _ = train(nano, tmp_path / "run")
    first = read_run(tmp_path / "run").resources
    assert first["device"] == "cpu"
    assert first["seconds"] > 0
    assert 2**20 < first["peak_memory_bytes"] < 2**40
    _ = train(nano, tmp_path / "run", resume=True)
    second = read_run(tmp_path / "run").resources
    assert second["seconds"] > first["seconds"]
    assert second["peak_memory_bytes"] >= first["peak_memory_bytes"]


def test_what_earlier_processes_took_is_added(tmp_path: Path):
    before = {"seconds": 100.0, "peak_memory_bytes": 2**60, "device": "another"}
    taken = Usage(torch.device("cpu"), start=0.0, before=before).so_far()
    assert taken["seconds"] > 100
    assert taken["peak_memory_bytes"] == 2**60
    assert Usage(torch.device("cpu"), 0.0, {"seconds": "damaged"}).so_far()["seconds"] > 0


def test_memory_is_counted_in_bytes_on_every_system(tmp_path: Path):
    status = tmp_path / "status"
    _ = status.write_text("VmPeak:\t 900 kB\nVmHWM:\t 700 kB\n")
    assert peak_resident_memory(status) == 700 * 1024
    assert (rusage_unit("darwin"), rusage_unit("linux")) == (1, 1024)
    held = torch.zeros(32 * 2**20, dtype=torch.uint8)
    assert peak_memory(torch.device("cpu")) > held.numel()
    assert 0.5 < peak_resident_memory(tmp_path / "absent") / peak_resident_memory() < 4


@pytest.mark.parametrize("key", ["--5", "-", "5" * 5000, "\u0665", "1.5", ""])
def test_a_key_that_is_no_id_is_left_out(tmp_path: Path, nano: Config, key: str):
    RunFiles(tmp_path).begin(nano, {}, step=0)
    _ = (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    _ = (tmp_path / "eval.json").write_text(json.dumps({"bbox/AP": 0.5, "unreadable": {key: "broken", "-7": "empty"}}))
    assert read_run(tmp_path).unreadable == {-7: "empty"}


@pytest.mark.parametrize("name", ["eval.json", "predictions.json"])
def test_an_evaluation_replaces_no_file_of_somebody_else(tmp_path: Path, name: str):
    _ = (tmp_path / name).write_text("[1, 2]")
    with pytest.raises(UserError, match=rf"{name}: exists, and .* choose another --output"):
        RunFiles(tmp_path).check_evaluation()


def test_an_evaluation_replaces_an_earlier_one_and_that_of_a_run(tmp_path: Path):
    files = RunFiles(tmp_path)
    files.check_evaluation()
    files.write_evaluation({"bbox/AP": 0.5}, step=7, results=CocoResults())
    files.check_evaluation()
    _ = files.config.write_text("")
    _ = files.metrics.write_text("")
    _ = files.figures.write_text("damaged")
    files.check_evaluation()
