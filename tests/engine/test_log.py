import json
import math
import re
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from resdet.engine.boards import tensorboard
from resdet.engine.log import RunLog
from resdet.engine.run_folder import RunFiles
from resdet.errors import UserError


def test_names_are_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with RunLog(tmp_path, steps=1) as log:
        log.say("[red]name[/red] :smile: \x1b[31m")
    assert capsys.readouterr().out == "[red]name[/red] :smile: \\x1b[31m\n"
    assert (tmp_path / "log.txt").read_text() == "[red]name[/red] :smile: \\x1b[31m\n"


def test_metrics_are_one_object_a_line_with_null_for_what_json_cannot_say(tmp_path: Path):
    with RunLog(tmp_path, steps=1) as log:
        log.metrics(3, {"loss": 0.5, "grad_norm": math.inf, "bbox/AP": None})
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 3, "loss": 0.5, "grad_norm": None, "bbox/AP": None}
    ]


def test_lines_beyond_the_step_of_a_resume_are_forgotten_and_half_a_line_too(tmp_path: Path):
    lines = ['{"step": 1, "loss": 1.0}', '{"step": 2, "loss": 2.0}', '{"step": 3, "lo']
    _ = (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    RunFiles(tmp_path).forget_after(1)
    assert (tmp_path / "metrics.jsonl").read_text() == lines[0] + "\n"


def test_a_process_that_does_not_lead_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with RunLog(tmp_path, steps=1, speaks=False) as log:
        log.say("hello")
        log.metrics(1, {"loss": 1.0})
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")
def test_tensorboard_gets_the_same_figures(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path, steps=1, boards=[tensorboard(tmp_path)]) as log:
        log.metrics(7, {"loss": 0.5, "bbox/AP": None})
    events = EventAccumulator(str(tmp_path))
    _ = events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(7, 0.5)]


def test_without_the_package_tensorboard_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[log\]'"):
        _ = tensorboard(tmp_path)


FIGURES = {"loss": 1.2345678, "lr": 0.000123456, "loss_objectness": 0.5, "loss_rpn_box_reg": 0.0333, "loss_mask": 0.25}
PACE = {"images_per_second": 1234.5, "data_wait": 0.25, "seconds_left": 3 * 86400.0}


def plain(text: str) -> str:
    """Without the codes that move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)


def test_the_live_line_fits_80_columns_with_step_loss_rate_speed_and_time_left(monkeypatch: pytest.MonkeyPatch):
    terminal(monkeypatch, 80)
    with RunLog(None, steps=90000) as log:
        log.training(89999, 90000, FIGURES | PACE)
        log.progress(89999, FIGURES)
        log.evaluating(3, 150)
        paper = Console(width=80, file=StringIO())
        with paper.capture() as shown:
            paper.print(log.display.get_renderable())
    training, evaluation = shown.get().splitlines()
    for part in ("train", "89999/90000", "loss 1.23", "lr 0.00012", "1234 img/s", "ETA 3d 0h"):
        assert part in training
    assert "evaluate" in evaluation
    assert "3/150" in evaluation


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        (50, ("89999/90000", "ETA 3d 0h")),
        (60, ("89999/90000", "loss 1.23", "ETA 3d 0h")),
        (100, ("89999/90000", "loss 1.23", "lr 0.00012", "1234 img/s", "ETA 3d 0h")),
        (160, ("89999/90000", "loss 1.23", "lr 0.00012", "1234 img/s", "ETA 3d 0h")),
    ],
)
def test_the_live_line_is_one_line_with_step_and_time_left_at_any_width(
    monkeypatch: pytest.MonkeyPatch, columns: int, parts: tuple[str, ...]
):
    terminal(monkeypatch, columns)
    with RunLog(None, steps=90000) as log:
        log.training(89999, 90000, FIGURES | PACE)
        log.progress(89999, FIGURES)
        log.evaluating(3, 150)
        paper = Console(width=columns, file=StringIO())
        with paper.capture() as shown:
            paper.print(log.display.get_renderable())
    training, _ = shown.get().splitlines()
    assert len(training.rstrip()) <= columns
    for part in parts:
        assert part in training


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (120, "step 20/640  loss 1.235 (objectness 0.5, rpn_box_reg 0.0333, mask 0.25)"),
        (60, "step 20/640  loss 1.235"),
    ],
)
def test_beside_the_live_line_the_losses_of_each_log_step_stay_as_far_as_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, line: str
):
    terminal(monkeypatch, columns)
    with RunLog(tmp_path, steps=640) as log:
        log.training(20, 640, FIGURES | PACE)
    assert line in [plain(printed).strip() for printed in capsys.readouterr().out.splitlines()]
    assert "mask 0.25)  lr 0.000123  1.23e+03 images/s  data wait 25%" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(("step", "left"), [(30, "ETA 0:40"), (50, "ETA 0:00")])
def test_the_time_left_goes_down_between_two_measurements(monkeypatch: pytest.MonkeyPatch, step: int, left: str):
    """80 seconds at step 10 of 50: two each."""
    terminal(monkeypatch, 80)
    with RunLog(None, steps=50) as log:
        log.training(10, 50, FIGURES | PACE | {"seconds_left": 80.0})
        log.progress(step, FIGURES)
        paper = Console(width=80, file=StringIO())
        with paper.capture() as shown:
            paper.print(log.display.get_renderable())
    assert left in shown.get()


def test_the_first_step_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]):
    with RunLog(None, steps=640) as log:
        log.progress(1, FIGURES)
        log.progress(2, FIGURES)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("step 1  loss 1.235 (objectness 0.5")
