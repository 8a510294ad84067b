"""Predicts images of any size: they are resized and batched as in evaluation, and boxes are in original pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from resdet.coco.run_lengths import encode_masks
from resdet.config import Config
from resdet.data.batches.collate import ImageInfo, Sample, boxes_in_original, collate, padded_shape
from resdet.data.images.decode import ImageError, resize, resized_size
from resdet.engine.machine import enough_memory
from resdet.predict.pixels import ChannelOrder, InMemory, check_channel_order
from resdet.predict.prediction import Prediction
from resdet.predict.sources import Images, OneImage, Reading, Source
from resdet.predict.tiles import Tiling, crops, merged
from resdet.predict.video import Clip
from resdet.structures import Batch, Detections
from resdet.text import first_few, printable

READERS = 2  # threads that decode while the model runs; OpenCV releases Python's global interpreter lock
LESS_MEMORY = "lower eval.batch_size or data.augment.test_short_side, or set train.device=cpu"
BATCHES_WAITING = 4  # batches of images that may wait until others of their shape have been read


@dataclass(frozen=True)
class Origin:
    """The files of a loaded detector (several are an ensemble), the step and the config of the first, and remarks about
    checkpoints that were passed over.
    """

    files: tuple[Path, ...]
    step: int
    config: Config
    remarks: tuple[str, ...] = ()


class Predictor:
    """A trained detector that predicts images: files, folders, videos, arrays, tensors, PIL images, and lists of them.

        detector = resdet.load("runs/quickstart")
        prediction = detector("photo.jpg")

    It keeps no state between calls, so threads may share it; the model stays on its device, in evaluation mode.

    Args:
        model: the detector; `model.predict` computes the detections of a batch.
        short_side, max_side: pixels that images are resized to, as `data.augment` has them for evaluation.
        size_divisor: pixels that the sides of a padded batch are multiples of (`collate.size_divisor` of the config).
        class_names, category_ids: by label; a label without a name is `class 3`, one without an id has its number
            counted from 1.
        batch_size: the largest number of images at a time.
        half: the type of matrix products, bfloat16 or float16; None: float32.
        layout: the model's memory format.
        sixteen_bit: "error", "scale" or "auto" (see `eight_bits`), for images with more than 8 bits per channel.
        origin: where the model comes from, for one that was loaded.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        short_side: int,
        max_side: int,
        size_divisor: int,
        class_names: Sequence[str] = (),
        category_ids: Sequence[int] = (),
        batch_size: int = 1,
        half: torch.dtype | None = None,
        layout: torch.memory_format = torch.contiguous_format,
        sixteen_bit: str = "error",
        origin: Origin | None = None,
    ) -> None:
        self.model = model.eval()
        self.short_side = short_side
        self.max_side = max_side
        self.size_divisor = size_divisor
        self.class_names = tuple(class_names)
        self.category_ids = tuple(category_ids)
        self.batch_size = batch_size
        self.half = half
        self.layout = layout
        self.sixteen_bit = sixteen_bit
        self.origin = origin

    @overload
    def __call__(
        self, images: InMemory, *, channels: ChannelOrder = "rgb", recursive: bool = False, tiling: Tiling | None = None
    ) -> Prediction: ...

    @overload
    def __call__(
        self, images: Clip, *, channels: ChannelOrder = "rgb", recursive: bool = False, tiling: Tiling | None = None
    ) -> Iterator[Prediction]: ...

    @overload  # a path may be that of a folder or a video
    def __call__(
        self,
        images: str | Path,
        *,
        channels: ChannelOrder = "rgb",
        recursive: bool = False,
        tiling: Tiling | None = None,
    ) -> Any: ...

    @overload
    def __call__(
        self,
        images: Iterable[OneImage],
        *,
        channels: ChannelOrder = "rgb",
        recursive: bool = False,
        tiling: Tiling | None = None,
    ) -> list[Prediction]: ...

    def __call__(
        self, images: object, *, channels: ChannelOrder = "rgb", recursive: bool = False, tiling: Tiling | None = None
    ) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """The prediction of one image; of a list, a folder or a pattern (`photos/*.jpg`), a list of predictions; of a
        video (`clip.mp4`, `resdet.Video("clip.mp4", every=5)`) or a `resdet.Camera`, an iterator, which reads the
        frames as the predictions are taken.

        `images` is a path (text or Path), a PIL image, a numpy array (height, width, 3), a torch tensor (3, height,
        width), or a list of these (see `as_rgb`). `channels` is "bgr" for arrays that OpenCV has read. `recursive`
        also takes the images in the subfolders of a folder. With `tiling` (`resdet.Tiling(640, overlap=0.2)`) every
        image is predicted in tiles, and what their seams cut is joined. Images without detections give empty
        predictions. The list does not keep the pixels of files; `Prediction.image` reads them again.

        Raises UserError for a path that does not exist, and ImageError, which is one, for an image that cannot be used.
        """
        reading = self._reading(channels, recursive=recursive)
        if reading.is_clip(images):
            return self._chosen_stream(reading.sources(images), tiling, None)
        if reading.is_one(images):
            (prediction,) = self._chosen_stream(reading.sources(images), tiling, None)
            return prediction
        predictions = self._chosen_stream(reading.sources(images, clips=False), tiling, None)
        return [replace(prediction, pixels=None) if prediction.path else prediction for prediction in predictions]

    def stream(
        self,
        images: Images,
        *,
        channels: ChannelOrder = "rgb",
        recursive: bool = False,
        tiling: Tiling | None = None,
        on_error: Callable[[Source, ImageError], None] | None = None,
    ) -> Iterator[Prediction]:
        """The predictions one by one, in the order of the images, of which only a few batches are in memory at a time.

        The arguments are those of a call; `images` may also be an iterator, which is read as the predictions are taken.
        An image that cannot be used is given to `on_error` and left out; without it, its ImageError is raised.
        """
        return self._chosen_stream(self._reading(channels, recursive=recursive).sources(images), tiling, on_error)

    def __repr__(self) -> str:
        where = "" if self.origin is None else f" {' + '.join(map(str, self.origin.files))} (step {self.origin.step})"
        names = f"{len(self.class_names)} classes: {first_few(self.class_names)}"
        return f"<Predictor{printable(where)}, {names}; images of {self.short_side} to {self.max_side} pixels>"

    def _reading(self, channels: ChannelOrder, *, recursive: bool) -> Reading:
        check_channel_order(channels)
        return Reading(channels, self.sixteen_bit, recursive)

    def _chosen_stream(
        self, sources: Iterator[Source], tiling: Tiling | None, on_error: Callable[[Source, ImageError], None] | None
    ) -> Iterator[Prediction]:
        if tiling is None:
            return self._stream(sources, on_error=on_error)
        return self._tiled_stream(sources, tiling, on_error=on_error)

    def _tiled_stream(
        self, sources: Iterator[Source], tiling: Tiling, *, on_error: Callable[[Source, ImageError], None] | None
    ) -> Iterator[Prediction]:
        """One image after the other, the tiles of each in batches."""
        for source, image in read_ahead(sources, ahead=1 + READERS):
            if isinstance(image, ImageError):
                if on_error is None:
                    raise image
                on_error(source, image)
                continue
            height, width = image.shape[:2]
            windows = tiling.windows(height, width)
            tiles = (Source(source.name, partial(np.asarray, tile)) for tile in crops(image, windows))
            yield merged(list(self._stream(tiles, on_error=None)), windows, self._nothing(source, image))

    def _nothing(self, source: Source, image: UInt8[np.ndarray, "H W 3"]) -> Prediction:
        """The prediction of an image without objects."""
        return Prediction(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            labels=np.zeros(0, np.int64),
            run_lengths=None,
            height=image.shape[0],
            width=image.shape[1],
            class_names=self.class_names,
            category_ids=self.category_ids,
            source=source,
            pixels=image,
        )

    def _stream(
        self, sources: Iterator[Source], *, on_error: Callable[[Source, ImageError], None] | None
    ) -> Iterator[Prediction]:
        """Images are predicted together if their padded shapes are equal, so that none is padded for its neighbour."""
        waiting = _Waiting(self.batch_size)
        for source, image in read_ahead(sources, ahead=self.batch_size + READERS):
            if isinstance(image, ImageError):
                if on_error is None:
                    raise image
                on_error(source, image)
                continue
            waiting.add(source, image, self._padded_shape(image))
            while group := waiting.due():
                yield from waiting.finish(group, self._predict_group(group))
        while group := waiting.due(last=True):
            yield from waiting.finish(group, self._predict_group(group))

    def _predict_group(self, group: Sequence[_Read]) -> list[Prediction]:
        """The predictions of images of one padded shape."""
        samples = [self._sample(read.image) for read in group]
        batch = self._on_device(samples)
        half, device = self.half, batch.images.device
        precision = torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)
        with torch.inference_mode(), precision, enough_memory(device, LESS_MEMORY):
            detections = self._detections(batch).to("cpu")
        return [
            self._prediction(read, detections, row, sample.info)
            for row, (read, sample) in enumerate(zip(group, samples, strict=True))
        ]

    def _prediction(self, read: _Read, detections: Detections, row: int, info: ImageInfo) -> Prediction:
        valid = detections.valid[row].numpy()
        boxes = boxes_in_original(detections.boxes[row].float(), info)[valid]
        masks = None
        if detections.masks is not None:
            masks = encode_masks(detections.masks[row].float().numpy()[valid], boxes, info.height, info.width)
        return Prediction(
            boxes=boxes,
            scores=detections.scores[row].float().numpy()[valid],
            labels=detections.labels[row].numpy()[valid],
            run_lengths=masks,
            height=info.height,
            width=info.width,
            class_names=self.class_names,
            category_ids=self.category_ids,
            source=read.source,
            pixels=read.image,
        )

    def _detections(self, batch: Batch) -> Detections:
        """`model.predict`; the type of nn.Module does not declare it."""
        detections = self.model.predict(batch)  # pyright: ignore[reportCallIssue]
        assert isinstance(detections, Detections)
        return detections

    def _resized_size(self, image: UInt8[np.ndarray, "H W 3"]) -> tuple[int, int]:
        return resized_size(image.shape[0], image.shape[1], self.short_side, self.max_side)

    def _padded_shape(self, image: UInt8[np.ndarray, "H W 3"]) -> tuple[int, int]:
        return padded_shape([self._resized_size(image)], self.size_divisor)

    def _sample(self, image: UInt8[np.ndarray, "H W 3"]) -> Sample:
        height, width = image.shape[:2]
        size = self._resized_size(image)
        return Sample(
            image=resize(image, size),
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int64),
            crowd=np.zeros(0, bool),
            seed=0,
            info=ImageInfo(0, "", height, width, scale_y=size[0] / height, scale_x=size[1] / width),
        )

    def _on_device(self, samples: Sequence[Sample]) -> Batch:
        shape = padded_shape([sample.image.shape[:2] for sample in samples], self.size_divisor)
        batch = replace(collate(samples, shape=shape, slots=0).batch, targets=None)
        batch = batch.to(next(self.model.parameters()).device)
        return replace(batch, images=batch.images.contiguous(memory_format=self.layout))


@dataclass(frozen=True)
class _Read:
    """An image that has been read, and its number in the order of the images."""

    number: int
    source: Source
    image: UInt8[np.ndarray, "H W 3"]


@dataclass
class _Waiting:
    """Images that wait for others of their padded shape, and predictions that wait for earlier images."""

    batch_size: int
    groups: dict[tuple[int, int], list[_Read]] = field(default_factory=dict)  # by shape, the one with the oldest first
    done: dict[int, Prediction] = field(default_factory=dict)
    count: int = 0  # of images so far
    given: int = 0  # of predictions that have left

    def add(self, source: Source, image: UInt8[np.ndarray, "H W 3"], shape: tuple[int, int]) -> None:
        self.groups.setdefault(shape, []).append(_Read(self.count, source, image))
        self.count += 1

    def due(self, *, last: bool = False) -> list[_Read]:
        """A group that must be predicted now, if there is one: a full one; or the oldest, if too many images wait or
        no more will come.
        """
        full = next((shape for shape, group in self.groups.items() if len(group) == self.batch_size), None)
        oldest = next(iter(self.groups), None)
        if full is None and (last or self.count - self.given > BATCHES_WAITING * self.batch_size):
            full = oldest
        return [] if full is None else self.groups.pop(full)

    def finish(self, group: Sequence[_Read], predictions: Sequence[Prediction]) -> Iterator[Prediction]:
        """Takes the predictions of a group and yields those whose turn it is."""
        self.done.update((read.number, prediction) for read, prediction in zip(group, predictions, strict=True))
        while self.given in self.done:
            prediction = self.done.pop(self.given)
            self.given += 1
            yield prediction


def read_ahead(
    sources: Iterable[Source], *, ahead: int
) -> Iterator[tuple[Source, UInt8[np.ndarray, "_ _ 3"] | ImageError]]:
    """Images in their order, or the reason why one cannot be used; threads read up to `ahead` of them beforehand."""

    def read(source: Source) -> UInt8[np.ndarray, "_ _ 3"] | ImageError:
        try:
            return source.read()
        except ImageError as error:
            return error

    remaining = iter(sources)
    pool = ThreadPoolExecutor(READERS)
    try:
        waiting = deque((source, pool.submit(read, source)) for source in islice(remaining, ahead))
        while waiting:
            source, image = waiting.popleft()
            yield source, image.result()
            waiting.extend((following, pool.submit(read, following)) for following in islice(remaining, 1))
    finally:
        pool.shutdown(cancel_futures=True)
