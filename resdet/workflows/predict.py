"""Predicts as `resdet predict` does: a folder of drawings and results, by one process, several, or a cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from resdet.engine.distributed import World, join_world
from resdet.errors import UserError, row_of
from resdet.files import usable_paths
from resdet.plugins import load_plugins, loaded_plugins
from resdet.predict.extras import EXTRAS
from resdet.predict.image_list import find_images
from resdet.predict.prediction import Colors
from resdet.predict.prediction_folder import IMAGES, PREDICTIONS, check_folder
from resdet.predict.shared_folder import join_parts, part_of
from resdet.predict.shares import (
    CSV,
    Given,
    Order,
    Share,
    Voice,
    introduction,
    load_detector,
    no_progress,
    predict_share,
)
from resdet.predict.tiles import Tiling
from resdet.predict.video import Camera, Clip, Video, is_video
from resdet.ray_cluster import Cluster, check_engine, connected
from resdet.text import printable

SAY = partial(print, flush=True)


@dataclass(frozen=True)
class PredictedFolder:
    """A folder of predictions: the number of images and frames in it, of the objects that are drawn, and what could not
    be read (`file_name` and `problem`), of `given` images, videos and cameras.
    """

    folder: Path
    images: int
    drawn: int
    given: int
    skipped: tuple[dict[str, Any], ...] = ()


@usable_paths()
def predict_folder(
    checkpoint: str | Path,
    images: str | Path | Clip | Sequence[str | Path | Clip],
    output: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    ensemble: Sequence[str | Path] = (),
    recursive: bool = False,
    every: int = 1,
    score: float = 0.5,
    tiling: Tiling | None = None,
    classes: Sequence[str] | None = None,
    most: int | None = None,
    colors: Colors = "class",
    also: Sequence[str] = (),
    engine: str = "local",
    address: str | None = None,
    parts: int | None = None,
    say: Callable[[str], None] = SAY,
    progress: Callable[[int, int | None, float], None] = no_progress,
) -> PredictedFolder:
    """Predicts images, videos and folders into the folder `output`: drawings, predictions.json and images.json.

    `checkpoint`, `overrides` and `ensemble` are those of `resdet.load`. `images` is a path, a pattern or an address, a
    `resdet.Video` or `resdet.Camera`, or a list of these; `every` takes each N-th frame of videos that are paths.
    `output` is `predictions`, or the first of predictions-2 ... that is free, if it is not given. Objects with at least
    `score` are drawn; `classes` and `most` (of an image) leave out others altogether. `also` names further files: csv,
    json, txt, crops, labels. Under torchrun each process predicts its share. `engine="ray"` divides the images into
    `parts` for the nodes of the Ray cluster at `address` (None: the one of this machine). `say` receives lines,
    `progress` after each image the number so far, of how many (None: not known), and the images a second.

    Raises UserError for a user's mistake. An image that cannot be read is no error; it is among the `skipped` ones.
    """
    _check(score, most, also, engine, address, parts)
    given = _given([images] if isinstance(images, str | Path | Clip) else images, every, recursive=recursive)
    order = Order(
        checkpoint=checkpoint,
        given=given,
        output=None if output is None else Path(output),
        overrides=overrides,
        ensemble=ensemble,
        score=score,
        tiling=tiling,
        classes=classes,
        most=most,
        colors=colors,
        also=also,
    )
    said = [text.partition("=")[2] for text in overrides if text.startswith("train.device=")]
    device = said[-1] if said else "auto"
    if engine == "ray":
        return _on_cluster(replace(order, output=order.output or _free_folder()), device, address, parts, say)
    if output is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("--output DIR is missing: processes of torchrun need one that all of them know")
    with join_world(device) as world:
        return _in_world(order, world, Voice(say, progress))


def _check(
    score: float, most: int | None, also: Sequence[str], engine: str, address: str | None, parts: int | None
) -> None:
    if not 0 <= score <= 1:
        raise UserError(f"--score {score:g} must lie between 0 and 1")
    if most is not None and most < 1:
        raise UserError(f"--max {most} must be at least 1")
    for name in also:
        _ = row_of({CSV: None, **EXTRAS}, name, "also")
    check_engine(engine, address)
    if parts is not None and engine == "local":
        raise UserError(f"--parts {parts} is about a Ray cluster; add --engine ray, or leave it out")
    if parts is not None and parts < 1:
        raise UserError(f"--parts {parts} must be at least 1")


def _given(images: Sequence[str | Path | Clip], every: int, *, recursive: bool) -> list[Given]:
    """Files, addresses, videos and cameras. Raises UserError for what does not exist, and if there is nothing."""
    paths = find_images([each for each in images if not isinstance(each, Clip)], recursive=recursive)
    given: list[Given] = [Video(path, every) if isinstance(path, Path) and is_video(path) else path for path in paths]
    given += [each for each in images if isinstance(each, Clip)]
    if not given:
        raise UserError("no PATH given; give images, videos or folders, or - for a list of paths on the standard input")
    return given


def _free_folder() -> Path:
    """`predictions`, or with the first number for which there is nothing yet."""
    folders = (Path(f"predictions{suffix}") for suffix in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(folder for folder in folders if not folder.exists())


def _in_world(order: Order, world: World, voice: Voice) -> PredictedFolder:
    """Predicts the share of this process; the first process says what was done."""
    detector = load_detector(order, world)
    if world.leads:
        for line in introduction(order, detector):
            voice.say(line)
    output = order.output or _free_folder()
    _check_share(output, world)
    folder = output if world.size == 1 else part_of(output, world.rank)
    quiet = voice if world.leads else replace(voice, progress=no_progress)
    share = predict_share(order, detector, folder, order.given[world.rank :: world.size], quiet)
    shares = world.gather(share)
    if world.leads:
        voice.say(_summary(order, shares, share.seconds))
    skipped = share.skipped if world.size == 1 else _joined(output, world)
    if world.leads:
        voice.say(_places(output))
    return _result(output, order, shares, world.from_lead(skipped))


def _on_cluster(
    order: Order, device: str, address: str | None, parts: int | None, say: Callable[[str], None]
) -> PredictedFolder:
    """Each part is a task, which writes a folder of its own, and this process joins them."""
    if any(isinstance(each, Camera) for each in order.given):
        raise UserError("a camera is one of this machine; leave --engine ray out")
    output = order.output
    assert output is not None
    with connected(address) as cluster:
        check_folder(output)
        cluster.check_shared(output.resolve().parent)
        start = time.perf_counter()
        shares = []
        for lines, share in _parts(cluster, order, device, parts):
            for line in lines:
                say(line)
            shares.append(share)
    say(_summary(order, shares, time.perf_counter() - start))
    skipped = join_parts(output, len(shares))
    say(_places(output))
    return _result(output, order, shares, skipped)


def _parts(cluster: Cluster, order: Order, device: str, parts: int | None) -> Iterator[tuple[list[str], Share]]:
    room = cluster.room(device)
    count = min(parts or room.at_once, len(order.given))
    calls = [(order, number, count, loaded_plugins()) for number in range(count)]
    return cluster.results(predict_part, calls, room=room)


def predict_part(order: Order, number: int, parts: int, plugins: Sequence[Path]) -> tuple[list[str], Share]:
    """A task: predicts one part; returns what it says. The first one introduces the detector."""
    load_plugins(plugins)
    lines: list[str] = []
    detector = load_detector(order, World())
    if number == 0:
        lines += introduction(order, detector)
    assert order.output is not None
    voice = Voice(lines.append, no_progress)
    return lines, predict_share(order, detector, part_of(order.output, number), order.given[number::parts], voice)


def _check_share(output: Path, world: World) -> None:
    """Raises UserError, before anything is predicted, if the folder that is joined at the end holds something else."""
    problem = None
    if world.size > 1 and world.leads:
        try:
            check_folder(output)
        except UserError as error:
            problem = error
    world.raise_together(problem)


def _joined(output: Path, world: World) -> list[dict[str, Any]]:
    """The parts of all processes in one folder, when all are done; the images that were skipped."""
    _ = world.any(flag=False)  # waits for all
    skipped: list[dict[str, Any]] = []
    problem = None
    if world.leads:
        try:
            skipped = join_parts(output, world.size)
        except UserError as error:
            problem = error
    world.raise_together(problem)
    return skipped


def _summary(order: Order, shares: Sequence[Share], seconds: float) -> str:
    images, drawn, done = (sum(getattr(each, name) for each in shares) for name in ("images", "drawn", "done"))
    return f"images: {images}, objects with a score of at least {order.score:g}: {drawn}, {done / seconds:.3g} images/s"


def _places(output: Path) -> str:
    return f"drawings: {printable(str(output))}   predictions: {PREDICTIONS}   image ids: {IMAGES}"


def _result(output: Path, order: Order, shares: Sequence[Share], skipped: Sequence[dict[str, Any]]) -> PredictedFolder:
    images, drawn = sum(share.images for share in shares), sum(share.drawn for share in shares)
    return PredictedFolder(output, images, drawn, len(order.given), tuple(skipped))
