"""`resdet doctor`: each examination sees its fault, and says what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from resdet.analysis.doctor import Finding, examine, installation, machine, trial
from resdet.cli.main import main

QUICK = "resdet.analysis.doctor.examinations.QUICK"


def test_a_requirement_that_is_not_met_is_named() -> None:
    wanted = ["numpy>=99", "torch>=2", "no-such-package>=1", 'absent; extra == "dev"', 'absent; python_version < "3"']
    numpy, missing = installation.version_clashes(wanted)
    assert numpy.startswith("numpy is ")
    assert numpy.endswith("needed is >=99")
    assert missing == "no-such-package is missing"
    (of_an_extra,) = installation.version_clashes(['numpy>=98; extra == "export"', 'numpy>=99; python_version < "3"'])
    assert of_an_extra.endswith("needed is >=98")


@pytest.mark.parametrize(
    ("installed", "verdict", "remedy"),
    [
        (["opencv-python-headless"], "ok", ""),
        ([], "problem", "pip install opencv-python-headless"),
        (["opencv-python", "opencv-python-headless"], "problem", "pip uninstall opencv-python opencv-python-headless;"),
    ],
)
def test_opencv_is_there_once(installed: list[str], verdict: str, remedy: str) -> None:
    finding = installation.opencv_finding(installed)
    assert finding.verdict == verdict
    assert finding.remedy.startswith(remedy)


@pytest.mark.parametrize(("free", "verdict"), [(8e9, "ok"), (5e8, "note"), (6.4e7, "problem")])
def test_little_shared_memory_is_seen(free: float, verdict: str) -> None:
    finding = machine.shared_memory_finding(int(free))
    assert finding.verdict == verdict
    assert (finding.remedy == "") == (verdict == "ok")


def test_silent_hubs_are_a_note_with_the_way_round_them() -> None:
    assert machine.hubs_finding([], told_offline=False).verdict == "ok"
    finding = machine.hubs_finding(["https://huggingface.co"], told_offline=True)
    assert finding.verdict == "note"
    assert "huggingface.co" in finding.seen
    assert "model.backbone.weights=null" in finding.remedy
    told = machine.hubs_finding([], told_offline=True)
    assert (told.verdict, told.remedy) == ("note", "unset it")


@pytest.mark.parametrize(("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("400000 100000", 4.0)])
def test_the_limit_of_a_container_is_read_in_cores(text: str, cores: float | None) -> None:
    assert machine.cores_of(text) == cores


@pytest.mark.parametrize(
    ("quota", "threads", "remedy"), [(None, 64, ""), (2.0, 2, ""), (1.5, 2, ""), (1.5, 64, "set OMP_NUM_THREADS=2")]
)
def test_more_threads_than_a_container_has_cores_are_a_note(quota: float | None, threads: int, remedy: str) -> None:
    finding = machine.processor_finding(64, quota, threads, 8_000_000_000)
    assert finding.seen.startswith(f"64 cores, torch uses {threads} threads, 8.0 GB memory free")
    assert finding.verdict == ("note" if remedy else "ok")
    assert finding.remedy.startswith(remedy)


def test_a_missing_compiler_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    finding = machine.compiler()
    assert finding.verdict == "note"
    assert "no-such-compiler" in finding.seen
    assert finding.remedy.startswith("install g++")


def test_what_others_ask_of_our_packages_is_compared_with_what_is_there() -> None:
    given = [
        ("gradio", ["numpy<1", "torch>=1", "absent-package<1", 'numpy<0; extra == "old"']),
        ("broken", ["numpy (no version"]),
    ]
    (line,) = installation.clashes_of_others(given, {"numpy", "torch"})
    assert line.startswith("gradio needs numpy<1, installed is ")
    assert installation.clashes_of_others(given, {"torch"}) == []


def test_the_evaluators_agree_with_a_pencil_and_a_wrong_one_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial.figures_off("pycocotools") == []
    assert trial.evaluators().verdict == "ok"
    monkeypatch.setattr(trial, "KNOWN", {"bbox/AP": 0.6})
    (line,) = trial.figures_off("pycocotools")
    assert line.startswith("bbox/AP is 0.50495049")
    assert line.endswith(", not 0.600000")
    assert trial.evaluators().verdict == "problem"


def test_a_training_is_tried_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(trial, "STEPS", 2)
    finding = trial.training()
    assert finding.verdict == "ok"
    assert finding.seen.startswith("2 steps of nano")
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_fails_is_a_problem_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(trial, "train", fail)
    assert trial.training() == Finding(
        "training",
        "problem",
        "no kernel image is available for this device",
        "resdet train nano --output DIR shows the whole error",
    )


def test_every_quick_examination_ends_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "reachable", lambda hub, seconds: False)
    findings = list(examine(train=False))
    assert {"packages", "others", "OpenCV", "processor", "compiler", "disk", "GPU", "hubs", "evaluator"} <= {
        finding.subject for finding in findings
    }
    assert [finding for finding in findings if finding.verdict == "problem"] == []


def test_the_command_prints_remedies_and_ends_with_a_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Finding("disk", "ok", "10 GB free")
    bad = Finding("OpenCV", "problem", "twice [bold]\x1b[2J", "uninstall one")
    monkeypatch.setattr(QUICK, (lambda: good,))
    assert main(["doctor", "--quick"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: resdet works on this machine"
    monkeypatch.setattr(QUICK, (lambda: good, lambda: bad))
    assert main(["doctor", "--quick"]) == 2
    printed = capsys.readouterr()
    assert "-> uninstall one" in printed.out
    assert "\x1b[2J" not in printed.out
    assert printed.err == "error: 1 problems; the lines above say what to do\n"
