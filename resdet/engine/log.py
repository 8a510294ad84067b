"""The output of a run: a live line or plain lines on the terminal, its log and its metrics."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from resdet.engine.run_folder import RunFiles
from resdet.errors import UserError
from resdet.text import printable

SPEED = ("images_per_second", "data_wait", "seconds_left")


@runtime_checkable
class Board(Protocol):
    """Another receiver of the figures, for example TensorBoard's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


def tensorboard(folder: Path) -> Board:
    """Event files in the run's folder: `tensorboard --logdir runs` compares several runs."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise UserError("train.tensorboard=true needs a package more: pip install -e '.[log]'") from None
    return SummaryWriter(str(folder))


class RunLog:
    """The output of one run. Only the leading process writes to the terminal and to files."""

    def __init__(self, folder: Path | None, *, steps: int, speaks: bool = True, board: Board | None = None) -> None:
        """`folder` None writes no files (a dry run); otherwise the folder must exist. `board` receives every figure as
        well.
        """
        self._board = board
        self.console = Console(stderr=False, quiet=not speaks, markup=False, highlight=False, emoji=False)
        self._text = _appended(RunFiles(folder).log) if folder and speaks else None
        self._metrics = _appended(RunFiles(folder).metrics) if folder and speaks else None
        self._live = self.console.is_terminal and speaks
        self.display = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self._live,
        )
        self._training = self.display.add_task("train", total=steps, figures="")
        self._evaluation = self.display.add_task("evaluate", total=None, figures="images in batches", visible=False)
        self._speed: dict[str, float] = {}
        self._began = False

    def __enter__(self) -> RunLog:
        self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.display.stop()
        for file in (self._text, self._metrics, self._board):
            if file:
                file.close()

    def say(self, text: str, *, style: str = "") -> None:
        """Writes one line to the terminal and to log.txt."""
        text = printable(text)
        self.console.print(Text(text, style=style), soft_wrap=True)
        self.note(text)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}", style="yellow")

    def note(self, text: str) -> None:
        """Writes one line to log.txt only."""
        if self._text:
            print(printable(text), file=self._text, flush=True)

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes one object per line to metrics.jsonl; a number that is not finite becomes null, because JSON has no
        such numbers.
        """
        if self._metrics:
            finite = {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}
            print(json.dumps({"step": step, **finite}, ensure_ascii=False), file=self._metrics, flush=True)
        if self._board:
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)

    def progress(self, step: int, values: Mapping[str, float]) -> None:
        """Updates the live line; the first step of this process is also a plain line, as a sign of life."""
        if not self._began:
            self._began = True
            self._line(f"step {step}", values)
        if self._live:
            self.display.update(self._training, completed=step, figures=live_figures({**values, **self._speed}))

    def training(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """Writes the figures of a step to metrics.jsonl, and as a line to the terminal and log.txt."""
        self._speed = {name: values[name] for name in SPEED}
        self.metrics(step, {name: value for name, value in values.items() if name != "seconds_left"})
        self._line(f"step {step}/{steps}", values)

    def _line(self, start: str, values: Mapping[str, float]) -> None:
        """In log.txt with all figures; beside a live line without those that it shows, and without the parts of the
        loss if the terminal is too narrow for them.
        """
        self.note(f"{start}  {'  '.join((loss_parts(values), *rates(values)))}")
        shown = [f"{start}  {loss_parts(values)}", f"{start}  loss {values['loss']:.4g}"]
        if not self._live:
            shown.insert(0, f"{start}  {'  '.join((loss_parts(values), *rates(values)))}")
        fitting = [line for line in shown if len(line) <= self.console.width or not self.console.is_terminal]
        self.console.print(Text((fitting or shown[-1:])[0]), soft_wrap=True)

    def evaluating(self, done: int, batches: int) -> None:
        """Updates the live line of an evaluation, which disappears at its end."""
        if self._live:
            self.display.update(self._evaluation, completed=done, total=batches, visible=done < batches)


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
    return f"{line}; to shorten it: {'a GPU, ' if device == 'cpu' else ''}{smaller}"


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


def _appended(path: Path) -> TextIOWrapper:
    return path.open("a", encoding="utf-8")


def loss_parts(values: Mapping[str, float]) -> str:
    """The loss and, in brackets, its parts."""
    losses = ", ".join(
        f"{name.removeprefix('loss_')} {v:.3g}" for name, v in values.items() if name.startswith("loss_")
    )
    return f"loss {values['loss']:.4g} ({losses})"


def rates(values: Mapping[str, float]) -> list[str]:
    """The learning rate and, if they are measured, the speed and the time left."""
    parts = [f"lr {values['lr']:.3g}"]
    if SPEED[0] in values:
        rate, wait, left = (values[name] for name in SPEED)
        parts += [f"{rate:.3g} images/s", f"data wait {wait:.0%}", f"ETA {timedelta(seconds=round(left))}"]
    return parts


def live_figures(values: Mapping[str, float]) -> str:
    """What fits beside the bar in 80 columns."""
    parts = [f"loss {values['loss']:.3g}", f"lr {values['lr']:.2g}"]
    if SPEED[0] in values:
        rate, _, left = (values[name] for name in SPEED)
        parts += [f"{rate:.0f} img/s" if rate >= 100 else f"{rate:.3g} img/s", f"ETA {clock(left)}"]
    return "  ".join(parts)
