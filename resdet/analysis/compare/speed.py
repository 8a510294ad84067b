"""The prediction speed of trained contestants, measured alternately in one process on the same images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import torch
from torch import nn

from resdet.analysis.benchmark.timing import Contestant as Timed
from resdet.analysis.benchmark.timing import alternate
from resdet.analysis.compare.comparison import Speed, TimingSetup
from resdet.config import Config, TrainConfig
from resdet.data.batches.loader import evaluation_batches
from resdet.data.sets.coco import CocoDataset
from resdet.engine.distributed import World, autocast, choose_device, to_device
from resdet.engine.evaluate import predict_batch
from resdet.engine.saved_models import built, place, read_models
from resdet.errors import UserError
from resdet.structures import Batch


class PredictionSpeed(TimingSetup, frozen=True):
    """The measured times, by contestant."""

    contestants: dict[str, Speed]

    @property
    def setup(self) -> TimingSetup:
        return TimingSetup(self.device, self.threads, self.batch, self.rounds)


def prediction_speed(runs: Sequence[tuple[str, Config, Path]], val_set: CocoDataset, *, rounds: int) -> PredictionSpeed:
    """Seconds an image of each of `runs` (a name, its config, its folder), and its ratio to the first.

    Each model predicts the first evaluation batch `rounds` times after one warm-up; the models run alternately. The
    postprocessing of detections (scaling, pasting of masks) is not measured. The ratio is the median over the rounds.
    """
    device = choose_device(runs[0][1].train.device, World())
    timed = [_timed(config, folder, val_set, device) for _, config, folder in runs]
    seconds = alternate([contestant for contestant, _ in timed], rounds, device)
    contestants: dict[str, Speed] = {}
    for (name, _, _), times, (_, images) in zip(runs, seconds, timed, strict=True):
        ratios = [mine / first for first, mine in zip(seconds[0], times, strict=True)]
        contestants[name] = Speed(
            seconds_per_image=statistics.median(times) / images,
            images_per_second=images / statistics.median(times),
            times_as_long=statistics.median(ratios) * timed[0][1] / images,
        )
    return PredictionSpeed(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        batch=timed[0][1],
        rounds=rounds,
        contestants=contestants,
    )


def kept_prediction_speed(path: Path, names: Sequence[str]) -> PredictionSpeed | None:
    """The result of an earlier call if it was for these contestants. Raises UserError for a damaged file."""
    if not path.exists():
        return None
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=PredictionSpeed)
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: is damaged ({error}); remove it, and predictions are timed again") from None
    return kept if list(kept.contestants) == list(names) else None


def _timed(config: Config, folder: Path, val_set: CocoDataset, device: torch.device) -> tuple[Timed, int]:
    """The function to be timed, and the number of images that it predicts."""
    (saved,) = read_models([folder], ())
    model = place(built(saved), device, config.train)
    loaded = next(iter(evaluation_batches(val_set, config, rank=0, world_size=1)))
    batch = to_device(loaded.batch, config.train, device)
    return (partial(_predict, model, config.train, device), (batch,)), len(loaded.images)


def _predict(model: nn.Module, train: TrainConfig, device: torch.device, batch: Batch) -> None:
    with torch.inference_mode(), autocast(train, device):
        _ = predict_batch(model, batch)
