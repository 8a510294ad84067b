"""Measures the speed of a training and estimates the time that is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Meter:
    """Measures the speed since the last call of `figures`."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._restart()

    def _restart(self) -> None:
        self._start, self._steps, self._waited = time.perf_counter(), 0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures the time of waiting for data inside the block."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def step(self) -> None:
        self._steps += 1

    def figures(self, steps_left: int) -> dict[str, float]:
        """images_per_second, data_wait (a fraction of the time) and seconds_left; then the measurement starts again."""
        seconds = time.perf_counter() - self._start
        figures = {
            "images_per_second": self._batch_size * self._steps / seconds,
            "data_wait": self._waited / seconds,
            "seconds_left": steps_left * seconds / self._steps,
        }
        self._restart()
        return figures


class Forecast:
    """Estimates once, after a few steps, how long a training will take."""

    STEPS = 5  # measured, after the first one, which starts the workers and fills caches

    def __init__(self, steps: int, device: str) -> None:
        """`steps` are to be made on `device`."""
        self._left, self._device, self._start = steps, device, 0.0
        self._made = 0

    def after_step(self) -> str | None:
        """To be called after each step; the line about the whole time, once."""
        self._made, self._left = self._made + 1, self._left - 1
        if self._made == 1:
            self._start = time.perf_counter()
        if self._made != 1 + self.STEPS or not self._left:
            return None
        return forecast(self._left, (time.perf_counter() - self._start) / self.STEPS, self._device)


def forecast(steps: int, seconds: float, device: str) -> str:
    """The time that `steps` steps of `seconds` each take, with remedies where it is more than a day."""
    line = f"about {duration(steps * seconds)} for {steps} more steps of {seconds:.2g} s, without evaluations"
    if steps * seconds < 24 * 3600:
        return line
    smaller = "train.steps, data.augment.short_side, train.batch_size or a smaller model.backbone.name"
    shorter = f"{line}; to shorten it: {'a GPU, ' if device == 'cpu' else ''}{smaller}"
    return f"{shorter}; resdet check-data suggests values for your data and this machine"


def clock(seconds: float) -> str:
    """`3:10`, `2:05:00`, or `3d 4h` from a day on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24}h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """A time in the two largest of its units: `35 s`, `4 min 10 s`, `2 h 5 min`, `3 days 4 h`."""
    units = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = max(1, round(seconds))
    first = next(i for i, (_, size) in enumerate(units) if left >= size)
    parts: list[str] = []
    for name, size in units[first : first + 2]:
        count, left = divmod(left, size)
        parts += [f"{count} {'day' if (name, count) == ('days', 1) else name}"] * bool(count)
    return " ".join(parts)
