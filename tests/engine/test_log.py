import json
import math
import sys
from pathlib import Path

import pytest

from resdet.engine.log import RunLog, tensorboard
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
