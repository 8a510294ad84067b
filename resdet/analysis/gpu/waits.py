"""How often a training step and a prediction wait for the device, how many kernels they launch, and a profile."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from resdet.analysis.benchmark.timing import Contest, optimizer_seconds, synchronize
from resdet.analysis.gpu.record import Record
from resdet.analysis.gpu.scale import MODELS, Setting
from resdet.config import OptimConfig

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
OPTIMIZERS = ("sgd", "adamw")
LINES = 20  # of the profile


def waits(record: Record, setting: Setting) -> None:
    """Of the forward and backward pass, of the whole step, and of a prediction, eagerly."""
    for model in MODELS:
        contest = Contest(setting.config(model), size=setting.scale.size, against=None)
        for name, run in runs(contest, setting.scale.batches[-1]).items():
            run()  # lazy initializations wait too
            seen = host_waits(run, contest.device)
            counted = events(run, contest.device)
            record.row(
                "waits",
                "Waits for the device and launches of kernels",
                {
                    "model": model,
                    "of": name,
                    "waits (sync debug mode)": len(seen),
                    "waits (profiler)": sum(counted[name] for name in WAITS),
                    "launches": sum(counted[name] for name in LAUNCHES),
                    "operators": sum(
                        count for name, count in counted.items() if name.startswith(("aten::", "resdet::"))
                    ),
                },
            )
            if seen:
                places = Counter(seen).most_common()
                record.text("waits", f"{model}, {name}", "\n".join(f"{count} x {place}" for place, count in places))


def runs(contest: Contest, batch_size: int) -> dict[str, Callable[[], object]]:
    """The parts of a step whose waits are counted."""
    batch, contestants = contest.batch(batch_size), contest.of(batch_size)

    def gradients() -> None:
        losses = contest.losses_of(batch)
        torch.stack(list(losses.values())).sum().backward()

    def call(name: str) -> Callable[[], object]:
        function, inputs = contestants[name][0]
        return lambda: function(*inputs)

    return {"forward and backward": gradients, "training step": call("train"), "prediction": call("predict")}


def host_waits(run: Callable[[], object], device: torch.device) -> list[str]:
    """The places at which `run` waits for a GPU, by file and line, as torch.cuda.set_sync_debug_mode reports them; none
    on a CPU.
    """
    if device.type != "cuda":
        run()
        return []
    synchronize(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename}:{each.lineno}" for each in caught if "synchronizing" in str(each.message)]


def events(run: Callable[[], object], device: torch.device) -> Counter[str]:
    """How often each operator and each call of the CUDA runtime occurs."""
    return Counter({event.key: event.count for event in profiled(run, device).key_averages()})


def profiled(run: Callable[[], object], device: torch.device) -> profile:
    """The profile of one run."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    synchronize(device)
    with profile(activities=activities, acc_events=True) as recorded:
        run()
        synchronize(device)
    return recorded


def profile_of_a_step(record: Record, setting: Setting) -> None:
    """The operators that take the most time in a training step of the first batch size, and in a prediction; and the
    time of the optimizer in both of its forms.
    """
    model = next(iter(MODELS))
    contest = Contest(setting.config(model), size=setting.scale.size, against=None)
    key = "self_device_time_total" if contest.device.type == "cuda" else "self_cpu_time_total"
    for name, contestants in contest.of(setting.scale.batches[0]).items():
        function, inputs = contestants[0]
        for _ in range(setting.scale.warmup):
            function(*inputs)
        averages = profiled(lambda function=function, inputs=inputs: function(*inputs), contest.device).key_averages()
        text = averages.table(sort_by=key, row_limit=LINES, max_name_column_width=60)
        record.text("profile", f"{model}, {name}, batch {setting.scale.batches[0]}", text)
    for name in OPTIMIZERS:
        seconds = optimizer_seconds(contest.model, OptimConfig(name=name), rounds=setting.scale.rounds)
        row = {key.removeprefix("optimizer/"): value for key, value in seconds.items()}
        record.row("profile", f"The update of all weights of {model}", {"optimizer": name, **row})
