import pytest

from resdet.engine.pace import Forecast, clock, duration, forecast


def test_the_whole_time_is_estimated_once_after_five_steps(monkeypatch: pytest.MonkeyPatch):
    now = iter([10.0, 20.0])  # at the end of the first step, and of the sixth
    monkeypatch.setattr("resdet.engine.pace.time.perf_counter", lambda: next(now))
    made = Forecast(100, "cpu")
    lines = [made.after_step() for _ in range(100)]
    assert [line for line in lines if line] == [lines[5]]
    assert lines[5] == "about 3 min 8 s for 94 more steps of 2 s, without evaluations"


def test_an_estimate_of_days_names_remedies():
    assert forecast(1000, 100.0, "cpu").startswith("about 1 day 3 h for 1000 more steps of 1e+02 s")
    assert "to shorten it: a GPU, train.steps, data.augment.short_side" in forecast(1000, 100.0, "cpu")
    assert "resdet check-data suggests values for your data and this machine" in forecast(1000, 100.0, "cpu")
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
