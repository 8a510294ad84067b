"""Images a second of training and prediction, of resdet and torchvision alternately, and the memory of an image."""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch

from resdet.analysis.benchmark.memory import peak_memory
from resdet.analysis.benchmark.timing import Contest, Contestant, alternate, synchronize
from resdet.analysis.gpu.record import Record, Value
from resdet.analysis.gpu.scale import MODELS, Setting

MIB = 2**20


def eager(record: Record, setting: Setting) -> None:
    """Both models at every batch size, without a compiler."""
    contests = {
        model: Contest(setting.config(model), size=setting.scale.size, against="torchvision") for model in MODELS
    }
    for batch in setting.scale.batches:
        for model, contest in contests.items():
            measure_batch(record, "eager", model, contest, batch, setting)


def compiled(record: Record, setting: Setting) -> None:
    """The same with train.compile=true, as far as the time permits; the seconds of a first run are the compiler's."""
    for model in MODELS:
        config = setting.config(model, "train.compile=true")
        contest = Contest(config, size=setting.scale.size, against="torchvision")
        for batch in setting.scale.batches:
            start = time.perf_counter()
            for name, (ours, *_) in contest.of(batch).items():
                first_run(record, name, ours, contest.device, {"model": model, "batch": batch})
            measure_batch(record, "compiled", model, contest, batch, setting)
            if setting.seconds_left < 1.2 * (time.perf_counter() - start):
                break


def first_run(record: Record, name: str, ours: Contestant, device: torch.device, row: dict[str, Value]) -> None:
    """Records the seconds of the first run, in which the model is compiled."""
    start = time.perf_counter()
    ours[0](*ours[1])
    synchronize(device)
    record.row(
        "compiled", "The first run, with compilation", row | {"of": name, "seconds": time.perf_counter() - start}
    )


def measure_batch(record: Record, part: str, model: str, contest: Contest, batch: int, setting: Setting) -> None:
    """Records training and prediction at one batch size; what does not fit into the memory is recorded as such."""
    title = "Images a second, resdet and torchvision alternately, and the peak memory of an image"
    for name, contestants in contest.of(batch).items():
        row: dict[str, Value] = {"model": model, "batch": batch, "of": name}
        try:
            row |= compared(contestants, batch, contest.device, setting)
        except torch.OutOfMemoryError:
            row |= {"resdet": "out of memory"}
            torch.cuda.empty_cache()
        record.row(part, title, row)


def compared(contestants: list[Contestant], batch: int, device: torch.device, setting: Setting) -> dict[str, Value]:
    """The medians of both, and the median of the paired ratios: above 1, resdet is faster."""
    memory = [peak_memory(partial(function, *inputs), device) for function, inputs in contestants]
    ours, theirs = alternate(contestants, setting.scale.rounds, device, warmup=setting.scale.warmup)
    per_image = {
        f"{name} MiB": used / batch / MIB for name, used in zip(("resdet", "torchvision"), memory, strict=True)
    }
    return {
        "resdet": batch / statistics.median(ours),
        "torchvision": batch / statistics.median(theirs),
        "ratio": statistics.median(their / our for our, their in zip(ours, theirs, strict=True)),
        **per_image,
    }
