"""A trace of some steps by torch's profiler (`train.profile`), for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from resdet.engine.train.state import Run

FIRST = 3  # steps that are not traced: they start the workers, fill caches and warm the profiler up


@contextmanager
def traced(run: Run) -> Iterator[Callable[[], None]]:
    """Gives a function to be called after each step; the leading process writes RUN/trace.json."""
    steps = run.config.train.profile
    if not steps or not run.world.leads:
        yield lambda: None
        return

    def write(trace: profile) -> None:
        trace.export_chrome_trace(str(run.files.trace))
        run.log.say(f"{steps} steps are traced in {run.files.trace}; open it in https://ui.perfetto.dev")

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    plan = schedule(wait=FIRST - 1, warmup=1, active=steps, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as trace:
        yield trace.step
    if trace.step_num < FIRST:
        run.log.warn(f"train.profile={steps}: there were too few steps to trace, {trace.step_num}")
