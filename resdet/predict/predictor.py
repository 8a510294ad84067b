"""Predicts images of any size: they are resized and batched as in evaluation, and boxes are in original pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import nn

from resdet.coco.run_lengths import RunLengths, encode_masks
from resdet.data.batches.collate import ImageInfo, Sample, boxes_in_original, collate, padded_shape
from resdet.data.images.decode import ImageError, read_image, resize, resized_size
from resdet.data.images.masks import MaskWindow, encoded_window
from resdet.structures import Batch, Detections

READERS = 2  # threads that decode while the model runs; OpenCV releases Python's global interpreter lock


@dataclass(frozen=True)
class ImagePrediction:
    """The detections in one image, best first; boxes are (x1, y1, x2, y2) in its pixels, labels are 0 .. K-1.

    `masks` are run lengths over the image, None for a detector without masks.
    """

    image: UInt8[np.ndarray, "H W 3"]
    boxes: Float32[np.ndarray, "n 4"]
    scores: Float32[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    masks: list[RunLengths] | None = None

    def windows(self, chosen: Bool[np.ndarray, " n"]) -> list[MaskWindow] | None:
        """The pixels of the selected masks."""
        if self.masks is None:
            return None
        return [encoded_window(self.masks[index]) for index in np.flatnonzero(chosen).tolist()]


class Predictor:
    """Predicts RGB arrays or image files with a model, which stays on its device and is set to evaluation mode.

    Args:
        model: the detector; `model.predict` computes the detections of a batch.
        short_side, max_side: pixels that images are resized to, as `data.augment` has them for evaluation.
        size_divisor: pixels that the sides of a padded batch are multiples of (`collate.size_divisor` of the config).
        batch_size: the largest number of images at a time.
        bf16: matrix products in bfloat16.
        channels_last: the model's memory format.
        sixteen_bit: "error" or "scale", for files with more than 8 bits per channel.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        short_side: int,
        max_side: int,
        size_divisor: int,
        batch_size: int = 1,
        bf16: bool = False,
        channels_last: bool = False,
        sixteen_bit: str = "error",
    ) -> None:
        self.model = model.eval()
        self.short_side = short_side
        self.max_side = max_side
        self.size_divisor = size_divisor
        self.batch_size = batch_size
        self.bf16 = bf16
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.sixteen_bit = sixteen_bit

    def predict(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[ImagePrediction]:
        """Detections in RGB images, which are predicted together; for thousands of images use `predict_files`."""
        if not images:
            return []
        samples = [self._sample(image) for image in images]
        batch = self._on_device(samples)
        with torch.inference_mode(), torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.bf16):
            detections = self._detections(batch).to("cpu")
        predictions = []
        for row, (image, sample) in enumerate(zip(images, samples, strict=True)):
            valid = detections.valid[row].numpy()
            boxes = boxes_in_original(detections.boxes[row].float(), sample.info)[valid]
            masks = None
            if detections.masks is not None:
                masks = encode_masks(detections.masks[row].float().numpy()[valid], boxes, *image.shape[:2])
            predictions.append(
                ImagePrediction(
                    image=image,
                    boxes=boxes,
                    scores=detections.scores[row].float().numpy()[valid],
                    labels=detections.labels[row].numpy()[valid],
                    masks=masks,
                )
            )
        return predictions

    def predict_files(self, paths: Iterable[Path]) -> Iterator[tuple[Path, ImagePrediction | ImageError]]:
        """Each file's detections, or the reason why it could not be read. Only a few images are in memory at a time.

        Neighbours with the same orientation share a batch, because a portrait beside a landscape would be mostly
        padding. Files are returned in order, except that a file that cannot be read is returned as soon as this is
        known.
        """
        batch: list[tuple[Path, UInt8[np.ndarray, "_ _ 3"]]] = []
        for path, image in read_ahead(paths, ahead=self.batch_size + READERS, sixteen_bit=self.sixteen_bit):
            if isinstance(image, ImageError):
                yield path, image
                continue
            if batch and (len(batch) == self.batch_size or _is_portrait(image) != _is_portrait(batch[0][1])):
                yield from self._predicted(batch)
                batch = []
            batch.append((path, image))
        yield from self._predicted(batch)

    def _detections(self, batch: Batch) -> Detections:
        """`model.predict`; the type of nn.Module does not declare it."""
        detections = self.model.predict(batch)  # pyright: ignore[reportCallIssue]
        assert isinstance(detections, Detections)
        return detections

    def _predicted(
        self, batch: Sequence[tuple[Path, UInt8[np.ndarray, "_ _ 3"]]]
    ) -> Iterator[tuple[Path, ImagePrediction]]:
        predictions = self.predict([image for _, image in batch])
        yield from zip([path for path, _ in batch], predictions, strict=True)

    def _sample(self, image: UInt8[np.ndarray, "H W 3"]) -> Sample:
        height, width = image.shape[:2]
        size = resized_size(height, width, self.short_side, self.max_side)
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


def read_ahead(
    paths: Iterable[Path], *, ahead: int, sixteen_bit: str = "error"
) -> Iterator[tuple[Path, UInt8[np.ndarray, "_ _ 3"] | ImageError]]:
    """Files in their order as RGB images, or the reason why one cannot be read; threads read up to `ahead` of them
    beforehand.
    """

    def read(path: Path) -> UInt8[np.ndarray, "_ _ 3"] | ImageError:
        try:
            return read_image(path, sixteen_bit=sixteen_bit)
        except ImageError as error:
            return error

    remaining = iter(paths)
    with ThreadPoolExecutor(READERS) as pool:
        waiting = deque((path, pool.submit(read, path)) for path in islice(remaining, ahead))
        while waiting:
            path, image = waiting.popleft()
            yield path, image.result()
            waiting.extend((following, pool.submit(read, following)) for following in islice(remaining, 1))


def _is_portrait(image: UInt8[np.ndarray, "H W 3"]) -> bool:
    return image.shape[0] > image.shape[1]
