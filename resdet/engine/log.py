"""The output of a run: a live line or plain lines on the terminal, its log and its metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from resdet.appended_file import Appended
from resdet.engine.boards import Board
from resdet.engine.pace import clock
from resdet.engine.run_folder import RunFiles
from resdet.text import printable

SPEED = ("images_per_second", "data_wait", "seconds_left")
BAR = 10  # columns of a live line
EVALUATE = "evaluate"  # the longer of the two names of live lines


class RunLog:
    """The output of one run. Only the leading process writes to the terminal and to files."""

    def __init__(self, folder: Path | None, *, steps: int, speaks: bool = True, boards: Sequence[Board] = ()) -> None:
        """`folder` None writes no files (a dry run); otherwise the folder must exist. `boards` receive every figure as
        well.
        """
        self._boards = boards
        self.console = Console(stderr=False, quiet=not speaks, markup=False, highlight=False, emoji=False)
        self._text = Appended(RunFiles(folder).log) if folder and speaks else None
        self._metrics = Appended(RunFiles(folder).metrics) if folder and speaks else None
        self._said_full = False  # whether the terminal knows that the files cannot be written
        self._live = self.console.is_terminal and speaks
        self.display = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self._live,
        )
        self._training = self.display.add_task("train", total=steps, figures="")
        self._evaluation = self.display.add_task(EVALUATE, total=None, figures="images in batches", visible=False)
        self._speed: dict[str, float] = {}
        self._measured = self._steps = 0  # the step of that speed, and the last step
        self._began = False

    def __enter__(self) -> RunLog:
        self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.display.stop()
        for file in (self._text, self._metrics, *self._boards):
            if file:
                file.close()

    def expect(self, steps: int) -> None:
        """Sets the number of steps of the live line."""
        self.display.update(self._training, total=steps)

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
            self._add(self._text, f"{printable(text)}\n")

    def _add(self, file: Appended, line: str) -> None:
        """A disk that is full is a warning on the terminal; the lines follow when there is room."""
        reason = file.add(line)
        if reason and not self._said_full:
            text = f"warning: {file.path}: cannot be written now ({reason}); its lines are kept until there is room"
            self.console.print(Text(printable(text), style="yellow"), soft_wrap=True)
        self._said_full = reason is not None

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes one object per line to metrics.jsonl; a number that is not finite becomes null, because JSON has no
        such numbers.
        """
        if self._metrics:
            finite = {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}
            self._add(self._metrics, json.dumps({"step": step, **finite}, ensure_ascii=False) + "\n")
        for board in self._boards:
            for name, value in values.items():
                if value is not None:
                    board.add_scalar(name, value, step)

    def progress(self, step: int, values: Mapping[str, float]) -> None:
        """Updates the live line; the first step of this process is also a plain line, as a sign of life."""
        if not self._began:
            self._began = True
            self._line(f"step {step}", values)
        if self._live:
            figures = live_figures({**values, **self._speed_at(step)}, self._room())
            self.display.update(self._training, completed=step, figures=figures)

    def _speed_at(self, step: int) -> dict[str, float]:
        """The speed as measured last, with the time that is left at a later step."""
        if self._measured == self._steps:
            return self._speed
        rest = max(0, self._steps - step) / (self._steps - self._measured)
        return {**self._speed, "seconds_left": self._speed["seconds_left"] * rest}

    def _room(self) -> int:
        """The columns for figures, behind the name, the bar and the steps of the live line."""
        (total,) = (task.total for task in self.display.tasks if task.id == self._training)
        return self.console.width - len(f"{EVALUATE} {'-' * BAR} {total:.0f}/{total:.0f} ")

    def training(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """Writes the figures of a step to metrics.jsonl, and as a line to the terminal and log.txt."""
        self._speed, self._measured, self._steps = {name: values[name] for name in SPEED}, step, steps
        self.metrics(step, {name: value for name, value in values.items() if name != "seconds_left"})
        self._line(f"step {step}/{steps}", values)

    def _line(self, start: str, values: Mapping[str, float]) -> None:
        """In log.txt with all figures; beside a live line without those that it shows, and without the parts of the
        loss if the terminal is too narrow for them.
        """
        whole = f"{start}  {'  '.join((loss_parts(values), *rates(values)))}"
        self.note(whole)
        shown = [f"{start}  {loss_parts(values)}", f"{start}  loss {values['loss']:.4g}"]
        if not self._live:
            shown.insert(0, whole)
        fitting = [line for line in shown if len(line) <= self.console.width or not self.console.is_terminal]
        self.console.print(Text((fitting or shown[-1:])[0]), soft_wrap=True)

    def evaluating(self, done: int, batches: int) -> None:
        """Updates the live line of an evaluation, which disappears at its end."""
        if self._live:
            self.display.update(self._evaluation, completed=done, total=batches, visible=done < batches)


def loss_parts(values: Mapping[str, float]) -> str:
    """The loss and, in brackets, its parts."""
    losses = ", ".join(
        f"{name.removeprefix('loss_')} {v:.3g}" for name, v in values.items() if name.startswith("loss_")
    )
    return f"loss {values['loss']:.4g} ({losses})"


def rates(values: Mapping[str, float]) -> list[str]:
    """The learning rate and, if they are measured, the speed and the time left; dropped objects, if there are any."""
    parts = [f"lr {values['lr']:.3g}"]
    if SPEED[0] in values:
        rate, wait, left = (values[name] for name in SPEED)
        parts += [f"{rate:.3g} images/s", f"data wait {wait:.0%}", f"ETA {clock(left)}"]
    if count := values.get("dropped_objects"):
        parts.append(f"{count:g} objects dropped")
    return parts


def live_figures(values: Mapping[str, float], room: int) -> str:
    """What fits beside the bar: all of it in 80 columns; in fewer first the learning rate is left out, then the speed,
    then the loss.
    """
    parts = {"loss": f"loss {values['loss']:.3g}", "lr": f"lr {values['lr']:.2g}"}
    if SPEED[0] in values:
        rate, _, left = (values[name] for name in SPEED)
        parts["speed"] = f"{rate:.0f} img/s" if rate >= 100 else f"{rate:.3g} img/s"
        parts["left"] = f"ETA {clock(left)}"
    for name in ("lr", "speed", "loss"):
        if len("  ".join(parts.values())) > room:
            _ = parts.pop(name, None)
    return "  ".join(parts.values())
