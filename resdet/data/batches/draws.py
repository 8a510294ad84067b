"""How often an epoch shows each training image: once, or as a row of a literal table of samplers says."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from resdet.config import DataConfig
from resdet.data.sets.coco import CocoDataset
from resdet.errors import UserError
from resdet.files import read_text
from resdet.text import shortened

HEADER = ["image", "weight"]
REMEDY = "write a csv with the header image,weight"


def expected_draws(dataset: CocoDataset, data: DataConfig) -> Float64[np.ndarray, " N"] | None:
    """The number of times that an epoch shows each image, on average; their sum is a whole number. None: each once.

    Raises UserError for a sampler that does not fit the data set.
    """
    if data.sampler_weights is not None and data.sampler != "weighted":
        raise UserError(f"data.sampler_weights={data.sampler_weights}: set data.sampler=weighted too, or leave it out")
    return None if data.sampler == "shuffled" else SAMPLERS[data.sampler](dataset, data)


def _repeat_factor(dataset: CocoDataset, data: DataConfig) -> Float64[np.ndarray, " N"]:
    """LVIS (Gupta et al. 2019, appendix B): a class in the fraction f of the images has the factor max(1, sqrt(t / f)),
    and an image the largest factor of its classes. All are scaled up so that their sum is the next whole number.
    """
    image, label = _pairs(dataset)
    share = np.bincount(label, minlength=len(dataset.class_names)) / len(dataset)
    factors = np.ones(len(dataset))
    np.maximum.at(factors, image, np.sqrt(data.sampler_threshold / share[label]))
    return factors * (np.ceil(factors.sum() - 1e-9) / factors.sum())


def _class_aware(dataset: CocoDataset, data: DataConfig) -> Float64[np.ndarray, " N"]:
    """As if each image were drawn by a class, all alike, and then one of the images with that class, all alike (Shen et
    al. 2016). Images without objects are not shown.
    """
    image, label = _pairs(dataset)
    counts = np.bincount(label, minlength=len(dataset.class_names))
    return _of_weights(np.bincount(image, 1 / counts[label], minlength=len(dataset)))


def _weighted(dataset: CocoDataset, data: DataConfig) -> Float64[np.ndarray, " N"]:
    """By the weights of a table: twice the weight is twice as often."""
    if data.sampler_weights is None:
        raise UserError(f"data.sampler=weighted needs data.sampler_weights; {REMEDY}")
    file = Path(data.sampler_weights)
    weights = np.ones(len(dataset))
    places = {dataset.file_names[index]: index for index in range(len(dataset))}
    lines = csv.reader(io.StringIO(read_text(file, REMEDY), newline=""))
    header = next(lines, [])
    if header != HEADER:
        raise UserError(f"{file}: the first line is {shortened(','.join(header), 60)!r}; {REMEDY}")
    for cells in lines:
        if not cells:
            continue
        where = f"{file}: line {lines.line_num}"
        if len(cells) != len(HEADER) or cells[0] not in places:
            raise UserError(f"{where}: {','.join(cells)[:200]!r} names no image of {dataset.annotations}; {REMEDY}")
        weights[places[cells[0]]] = _weight(cells[1], where)
    if not weights.any():
        raise UserError(f"{file}: every image has the weight 0; give one of them more")
    return _of_weights(weights)


def _weight(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise UserError(f"{where}: the weight is {shortened(text, 40)!r}; write a number from 0 to a million")
    return value


def _of_weights(weights: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """In proportion to the weights, as many as there are images."""
    return weights * (len(weights) / weights.sum())


def _pairs(dataset: CocoDataset) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """The image and the class of each pair of them that is there; crowd regions and difficult objects do not count."""
    image = np.repeat(np.arange(len(dataset)), np.diff(dataset.offsets))
    cells = np.unique((image * len(dataset.class_names) + dataset.labels)[~dataset.crowd])
    image, label = np.divmod(cells, len(dataset.class_names))
    return image, label


SAMPLERS: dict[str, Callable[[CocoDataset, DataConfig], Float64[np.ndarray, " N"]]] = {
    "repeat_factor": _repeat_factor,
    "class_aware": _class_aware,
    "weighted": _weighted,
}
