"""A time budget becomes a number of steps, once; from there on a run is like any other."""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from exact_resume import assert_resume_is_exact, assert_same, last_step, logged
from test_distributed import in_processes

from resdet.config import Config, load_config
from resdet.config.diff import check_same_run
from resdet.engine.checkpoint import checkpoint_path, checkpoints, read_state
from resdet.engine.train import budget, train
from resdet.engine.train.budget import Budget
from resdet.errors import UserError


class Clock:
    """A clock that a test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(budget.time, "monotonic", lambda: self.now)

    def fitted(self, minutes: float, seconds: Sequence[float]) -> tuple[int, int | None]:
        """The steps that were made when the number was known, and the number."""
        measured, found, made = Budget(60.0 * minutes), None, 0
        for step in seconds:
            self.now += step
            made, found = made + 1, measured.after_step()
            if found is not None:
                break
        return made, found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_rest_of_the_time_is_filled_at_the_pace_of_the_measured_steps(clock: Clock) -> None:
    """A first step of 20 s and 10 of 1 s: 30 of 600 s are spent, 570 steps follow the 11."""
    assert clock.fitted(10, [20] + [1] * 50) == (11, 581)


def test_a_long_budget_measures_longer(clock: Clock) -> None:
    """Two hundredths of 10,000 s are 200 s: the first step and 199 more."""
    assert clock.fitted(10_000 / 60, [1.0] * 300) == (200, 10_000)


def test_a_short_budget_ends_the_measurement_early_and_at_least_now(clock: Clock) -> None:
    assert clock.fitted(1, [10, 5, 5]) == (2, 2 + 45 // 5)
    assert clock.fitted(0.1, [10, 50, 50]) == (2, 2), "there is no time left"


def test_the_number_is_known_at_once_where_it_is_needed(clock: Clock) -> None:
    """After a first step of 4 s, 56 of 60 s are left: 14 more; after another step of 1 s, 55 of 1 s."""
    measured = Budget(60.0)
    clock.now += 4
    assert measured.after_step(now=True) == 1 + 14
    measured = Budget(60.0)
    clock.now += 4
    assert measured.after_step() is None
    clock.now += 1
    assert measured.after_step(now=True) == 2 + 55


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_of_the_config_do_not_end_a_run_before_it_is_fitted(
    tmp_path: Path, nano: Config, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However quick the steps are: 1.5 s hold 24 steps of a sixteenth of a second."""
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=itertools.count(0.0, 1 / 16).__next__))
    nano.train.minutes, nano.train.steps = 0.025, steps
    _ = train(nano, tmp_path / "run")
    assert f"train.minutes=0.025: train.steps=24, at the pace of {steps} step" in (tmp_path / "run/log.txt").read_text()
    assert last_step(tmp_path / "run") == 24


def test_a_run_that_was_fitted_goes_on_exactly(tmp_path: Path, nano: Config) -> None:
    """Real time: a budget of a second; the checkpoints after the decision have its number of steps."""
    nano.train.minutes, nano.train.log_every = 0.02, 1000
    nano.optim.schedule = "cosine"
    full = assert_resume_is_exact(nano, tmp_path, at=())
    steps = last_step(full)
    decided = next(step for step in range(1, steps + 1) if read_state(checkpoint_path(full, step))["fitted"])
    assert f"train.minutes=0.02: train.steps={steps}" in (full / "log.txt").read_text()
    assert load_config(full / "config.yaml").train.steps == steps
    run = tmp_path / "resumed"
    _ = shutil.copytree(full, run)
    for path in checkpoints(run)[decided:]:
        shutil.rmtree(path)
    _ = train(nano, run, resume=True)
    assert last_step(run) == steps
    ours, theirs = (read_state(checkpoint_path(path, steps)) for path in (run, full))
    assert_same(ours, theirs, "state")
    assert logged(run) == logged(full)


def test_the_end_of_mixing_follows_the_steps_that_were_fitted(
    tmp_path: Path, nano: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 3 steps of the config become 24, of which the last 20 do not mix: step 4 does, and workers had read ahead as
    if it would not.
    """
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=itertools.count(0.0, 1 / 16).__next__))
    nano.train.minutes, nano.train.steps, nano.data.workers = 0.025, 3, 2
    nano.data.augment.transforms, nano.data.augment.close_mix = [{"heavy": {}}], 0.85
    full = assert_resume_is_exact(nano, tmp_path, at=(3,))
    assert last_step(full) == 24


def test_a_comparison_may_have_runs_whose_steps_are_not_known_yet(tmp_path: Path) -> None:
    planned, written = (load_config(overrides=["train.minutes=3", f"train.steps={steps}"]) for steps in (90000, 417))
    check_same_run(written, planned, tmp_path)
    with pytest.raises(UserError, match=r"train.steps=90000 \(was 417\)"):
        check_same_run(written, load_config(), tmp_path)


def test_two_processes_fit_the_same_number(tmp_path: Path, nano_arguments: list[str]) -> None:
    """Also where the batches begin anew then, because a list of transforms puts images together until near the end."""
    budget = ["train.minutes=0.03", "data.augment.transforms=[heavy]"]
    done = in_processes(2, [*nano_arguments, *budget, "--output", str(tmp_path / "two")])
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    assert "train.minutes=0.03: train.steps=" in done[0].stdout


def test_epochs_and_minutes_together_are_an_error(tmp_path: Path, nano: Config) -> None:
    nano.train.minutes, nano.train.epochs = 1.0, 1.0
    with pytest.raises(UserError, match=r"train.epochs and train.minutes both say"):
        _ = train(nano, tmp_path / "run")
