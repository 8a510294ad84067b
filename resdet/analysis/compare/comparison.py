"""The records of a comparison: compare.json is written from them and read back into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from resdet.errors import UserError
from resdet.files import readable_json

FORMAT = "resdet compare 1"
AP = "bbox/AP"  # the figure by which backbones are compared


class Figure(msgspec.Struct, frozen=True):
    """One figure of a contestant: its mean over the seeds and its 95 % interval over images. None: undefined."""

    mean: float | None
    seeds: list[float]
    seed_std: float | None
    min: float | None
    max: float | None
    image_low: float | None
    image_high: float | None
    image_standard_error: float | None


class FigureDifference(msgspec.Struct, frozen=True):
    """A figure minus the first contestant's. `low` and `high` include the variation over images and over seeds, as the
    verdict does.
    """

    difference: float | None
    relative: float | None
    image_low: float | None
    image_high: float | None
    image_p: float | None
    relative_image_low: float | None
    relative_image_high: float | None
    verdict: str
    reason: str
    low: float | None
    high: float | None
    seed_low: float | None
    seed_high: float | None
    detectable: float | None


class ClassFigure(msgspec.Struct, frozen=True):
    """The AP of one class: the mean over seeds, and its difference to the first contestant's."""

    mean: float | None
    seeds: list[float]
    seed_std: float | None
    min: float | None
    max: float | None
    difference: float | None


class Training(msgspec.Struct, frozen=True):
    """Medians over the seeds, and the largest memory of any seed."""

    steps: int
    batch_size: int
    images_per_second: float | None
    seconds_per_step: float | None
    peak_memory_bytes: int | None
    devices: list[str]


class Curve(msgspec.Struct, frozen=True):
    """A figure over the steps of a run."""

    steps: list[float]
    values: list[float | None]


class Run(msgspec.Struct, frozen=True):
    """One training run; `figures` are the figures over all classes."""

    name: str
    seed: int
    folder: str
    figures: dict[str, float | None]
    resources: dict[str, Any]
    curves: dict[str, Curve]


class Reached(msgspec.Struct, frozen=True):
    """The first evaluated step at which the run of a seed has the final AP of the first contestant's run with that
    seed; None: it never has.
    """

    seed: int
    step: int | None


class PartCounts(msgspec.Struct, frozen=True):
    """One number for each part of a detector, and their sum."""

    trunk: int
    neck: int
    rpn: int
    heads: int
    total: int


class CostRecord(msgspec.Struct, frozen=True):
    """The cost for one image of `size` (height, width) with this number of proposals."""

    parameters: PartCounts
    multiply_adds: PartCounts
    size: tuple[int, int]
    proposals: int


class Speed(msgspec.Struct, frozen=True):
    """The prediction speed of a contestant; `times_as_long` is its time divided by the first contestant's."""

    seconds_per_image: float
    images_per_second: float
    times_as_long: float


class TimingSetup(msgspec.Struct, frozen=True):
    """The machine and the settings of the time measurement."""

    device: str
    threads: int
    batch: int
    rounds: int


class ContestantRecord(msgspec.Struct, frozen=True):
    """All results of one contestant. `against_first` and `reaches_first` are empty for the first one."""

    name: str
    backbone: str
    overrides: list[str]
    figures: dict[str, Figure]
    against_first: dict[str, FigureDifference]
    classes: dict[str, ClassFigure]
    training: Training
    runs: list[Run]
    cost: CostRecord
    prediction: Speed | None
    reaches_first: list[Reached] = msgspec.field(default_factory=list[Reached])  # absent before version 0.2


class ValSet(msgspec.Struct, frozen=True):
    """The images on which all contestants were scored."""

    annotations: str
    images: int
    objects: int
    classes: list[str]


class Resampling(msgspec.Struct, frozen=True):
    """The settings of the bootstrap over images."""

    resamples: int
    level: float


class Comparison(msgspec.Struct, frozen=True):
    """The whole comparison. `missing` gives, by name, the reason why a planned run is not included; `first` is the
    contestant with which the others are compared.

    `config_differences` are the keys whose values differ between contestants, with each contestant's value.
    """

    resdet: str
    command: str
    format: str
    first: str
    val: ValSet
    missing: dict[str, str]
    bootstrap: Resampling
    not_counted: str
    config_differences: dict[str, dict[str, Any]]
    prediction: TimingSetup | None
    contestants: list[ContestantRecord]

    def to_json(self) -> bytes:
        return readable_json(msgspec.to_builtins(self))

    @property
    def kinds(self) -> list[str]:
        """bbox, and also segm if all contestants have masks."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.contestants[0].figures))


def read_comparison(path: Path) -> Comparison:
    """The content of a compare.json. Raises UserError for a file that is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Comparison)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name the compare.json of a comparison") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no comparison ({error}); resdet compare --report-only writes it anew") from None
