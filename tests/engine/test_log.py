import json
import math
import re
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from resdet.engine.log import Forecast, RunLog, clock, duration, forecast, tensorboard
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

    with RunLog(tmp_path, steps=1, board=tensorboard(tmp_path)) as log:
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
        log.training(89990, 90000, FIGURES | PACE)
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


def test_the_first_step_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]):
    with RunLog(None, steps=640) as log:
        log.progress(1, FIGURES)
        log.progress(2, FIGURES)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("step 1  loss 1.235 (objectness 0.5")


def test_the_whole_time_is_estimated_once_after_five_steps(monkeypatch: pytest.MonkeyPatch):
    now = iter([10.0, 20.0])  # at the end of the first step, and of the sixth
    monkeypatch.setattr("resdet.engine.log.time.perf_counter", lambda: next(now))
    made = Forecast(100, "cpu")
    lines = [made.after_step() for _ in range(100)]
    assert [line for line in lines if line] == [lines[5]]
    assert lines[5] == "about 3 min 8 s for 94 more steps of 2 s, without evaluations"


def test_an_estimate_of_days_names_remedies():
    assert forecast(1000, 100.0, "cpu").startswith("about 1 day 3 h for 1000 more steps of 1e+02 s")
    assert "to shorten it: a GPU, train.steps, data.augment.short_side" in forecast(1000, 100.0, "cpu")
    assert "a GPU" not in forecast(1000, 100.0, "cuda")
    assert "shorten" not in forecast(1000, 86.0, "cpu")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(9.6, "0:10"), (190.0, "3:10"), (7500.0, "2:05:00"), (100000.0, "1d 3h")]
)
def test_the_time_left_on_the_live_line(seconds: float, shown: str):
    assert clock(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (59.6, "1 min"), (250.0, "4 min 10 s"), (7500.0, "2 h 5 min"), (3600.0, "1 h")]
)
def test_a_duration_in_its_two_largest_units(seconds: float, words: str):
    assert duration(seconds) == words
