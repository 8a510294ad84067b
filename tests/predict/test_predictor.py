"""Prediction of images of any size: the evaluation's detections, in pixels of the file, a few images at a time."""

import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resdet.config import Config
from resdet.data.images.decode import ImageError, read_image
from resdet.data.images.masks import encoded_window
from resdet.data.sets.coco import CocoDataset
from resdet.engine.evaluate import predict_dataset
from resdet.errors import UserError
from resdet.models.rcnn import RCNN
from resdet.predict.predictor import BATCHES_WAITING, READERS, Predictor, read_ahead
from resdet.predict.sources import Source
from resdet.structures import Batch, Detections


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_predictions_are_those_of_the_evaluation(model: RCNN, dataset: CocoDataset, config: Config) -> None:
    results = predict_dataset(model, dataset, config)
    predictor = Predictor(model, short_side=64, max_side=64, size_divisor=32)
    assert results.boxes is not None
    assert len(results) > 0
    for index, image_id in enumerate(dataset.image_ids):
        found = predictor(dataset.path(index))
        mine = results.image_ids == image_id
        corners = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1)
        np.testing.assert_allclose(corners, results.boxes[mine], atol=1e-4)
        np.testing.assert_allclose(found.scores, results.scores[mine], atol=1e-6)
        np.testing.assert_array_equal(dataset.category_ids[found.labels], results.category_ids[mine])


class WholeImage(RCNN):
    """Finds one object that fills each image, and remembers its batches."""

    def __init__(self, *, keep: bool = True) -> None:
        torch.nn.Module.__init__(self)
        self.keep = keep
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[Batch] = []

    def predict(self, batch: Batch) -> Detections:
        if self.keep:
            self.batches.append(batch)
        count = len(batch.images)
        boxes = torch.zeros(count, 2, 4)
        boxes[:, 0, 2:] = batch.sizes.flip(1).float()
        valid = torch.tensor([True, False]).repeat(count, 1)
        return Detections(boxes, valid * 0.75, torch.zeros(count, 2, dtype=torch.int64), valid)


def whole_image_predictor(model: WholeImage, batch_size: int = 4) -> Predictor:
    return Predictor(model, short_side=64, max_side=96, size_divisor=32, batch_size=batch_size)


@pytest.mark.parametrize("size", [(100, 50), (31, 333), (64, 64), (1, 1), (1, 4000)])
def test_a_box_round_the_resized_image_is_a_box_round_the_original(size: tuple[int, int]) -> None:
    found = whole_image_predictor(WholeImage())(noise(*size))
    np.testing.assert_allclose(found.boxes, [[0, 0, size[1], size[0]]], rtol=1e-6)
    assert found.scores.tolist() == [0.75]
    assert found.labels.tolist() == [0]


def test_an_image_in_a_batch_is_predicted_as_alone(predictor: Predictor) -> None:
    """Both fill 64 x 64 pixels; the order of the batch is that of the images."""
    images = [noise(64, 64, seed=1), noise(64, 64, seed=2)]
    for together, image in zip(predictor(images), images, strict=True):
        alone = predictor(image)
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-5)
        assert together.image is image


def test_no_image_has_no_prediction(predictor: Predictor) -> None:
    assert predictor([]) == []


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two wide, a damaged one, three tall, a wide one."""
    sizes = {"a": (40, 60), "b": (30, 60), "c": None, "d": (60, 40), "e": (60, 40), "f": (60, 30), "g": (50, 60)}
    for name, size in sizes.items():
        if size:
            Image.fromarray(noise(*size)).save(tmp_path / f"{name}.png")
        else:
            _ = (tmp_path / f"{name}.png").write_bytes(b"<html>")
    return sorted(tmp_path.iterdir())


def test_files_come_in_order_and_a_damaged_one_says_why(files: list[Path]) -> None:
    problems: list[tuple[Path | None, str]] = []
    predictions = whole_image_predictor(WholeImage()).stream(
        files, on_error=lambda source, problem: problems.append((source.path, str(problem)))
    )
    good = [path for path in files if path.stem != "c"]
    for path, prediction in zip(good, predictions, strict=True):
        height, width = read_image(path).shape[:2]
        assert (prediction.path, prediction.height, prediction.width) == (path, height, width)
        np.testing.assert_allclose(prediction.boxes, [[0, 0, width, height]], rtol=1e-6)
    ((path, problem),) = problems
    assert path == files[2]
    assert "c.png: is a web page" in problem


def test_a_damaged_file_is_an_error_unless_somebody_takes_it(files: list[Path]) -> None:
    with pytest.raises(ImageError, match="is a web page"):
        _ = list(whole_image_predictor(WholeImage()).stream(files))


def test_a_batch_holds_images_of_one_padded_shape() -> None:
    """Wide and tall images by turns: each waits for the next of its shape, and the order is kept."""
    model = WholeImage()
    sizes = [(40, 60), (60, 40), (42, 60), (60, 42), (44, 60)]
    predictions = whole_image_predictor(model, batch_size=2)([noise(*size) for size in sizes])
    assert [(prediction.height, prediction.width) for prediction in predictions] == sizes
    assert [tuple(batch.images.shape[2:]) for batch in model.batches] == [(64, 96), (96, 64), (64, 96)]
    assert [len(batch.images) for batch in model.batches] == [2, 2, 1]


def test_an_image_of_a_rare_shape_does_not_wait_for_ever() -> None:
    """One tall image before a thousand wide ones leaves before the last of them is read."""
    images = iter([noise(60, 40), *[noise(40, 60)] * 1000])
    stream = whole_image_predictor(WholeImage(), batch_size=2).stream(images)
    assert next(stream).height == 60
    assert len(list(images)) > 900


@pytest.mark.parametrize("neighbour", [(20, 64), (64, 20), (64, 64)])
def test_detections_do_not_depend_on_the_neighbours_in_the_batch(
    predictor: Predictor, neighbour: tuple[int, int]
) -> None:
    """The detector has group norm, whose statistics see the padding: each image is padded as if it were alone."""
    image, other = noise(64, 30, seed=3), noise(*neighbour, seed=4)
    together, _ = predictor([image, other])
    alone = predictor(image)
    assert len(alone) > 0
    np.testing.assert_allclose(together.scores, alone.scores, atol=1e-6)
    np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-4)


def test_a_stream_holds_a_few_images_at_a_time() -> None:
    """Of two thousand images in a generator, in shapes by turns, few are alive at any time."""
    alive: weakref.WeakValueDictionary[int, Picture] = weakref.WeakValueDictionary()
    most = 0

    def many() -> Iterator[np.ndarray]:
        nonlocal most
        for number in range(2000):
            picture = np.zeros((40, 60) if number % 2 else (60, 40), np.uint8).view(Picture)
            alive[number] = picture
            most = max(most, len(alive))
            yield picture

    sizes = [(found.height, found.width) for found in whole_image_predictor(WholeImage(keep=False)).stream(many())]
    assert sizes == [(60, 40), (40, 60)] * 1000
    assert most <= BATCHES_WAITING * 4 + 4 + READERS + 4


class Picture(np.ndarray):
    """An array that can be referred to weakly."""


def test_the_list_of_a_folder_keeps_no_pixels(files: list[Path]) -> None:
    files[2].unlink()
    predictions = whole_image_predictor(WholeImage())(files[0].parent)
    assert [prediction.pixels for prediction in predictions] == [None] * 6
    np.testing.assert_array_equal(predictions[0].image, read_image(files[0]))
    Image.fromarray(noise(9, 9)).save(files[1])
    with pytest.raises(UserError, match="another size than when it was predicted"):
        _ = predictions[1].image


def test_threads_share_detectors(model: RCNN, predictor: Predictor) -> None:
    """Two detectors and four threads give what each gives alone."""
    detectors = [predictor, Predictor(model, short_side=48, max_side=64, size_divisor=32)]
    images = [noise(64, 48, seed=seed) for seed in range(6)]
    wanted = [[detector(image).scores for image in images] for detector in detectors]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            jobs = [[pool.submit(detector, image) for image in images] for detector in detectors]
            for those, same in zip(jobs, wanted, strict=True):
                for job, scores in zip(those, same, strict=True):
                    np.testing.assert_allclose(job.result().scores, scores, atol=1e-6)


def test_reading_ahead_is_bounded() -> None:
    """Of a thousand images, only those asked for and a few more are touched."""
    taken: list[int] = []

    def many():
        for number in range(1000):
            taken.append(number)
            yield Source("zeros", partial(np.zeros, (2, 2, 3), np.uint8))

    reader = read_ahead(many(), ahead=3)
    for _ in range(5):
        _ = next(reader)
    assert len(taken) <= 5 + 3


class LeftHalf(WholeImage):
    """Has a mask for it: everything in the left half."""

    def predict(self, batch: Batch) -> Detections:
        found = super().predict(batch)
        masks = torch.zeros(*found.valid.shape, 28, 28)
        masks[..., :14] = 1
        return replace(found, masks=masks)


def test_masks_are_run_lengths_over_the_image_as_it_came() -> None:
    found = whole_image_predictor(LeftHalf())(noise(40, 60))
    assert found.run_lengths is not None
    (mask,) = found.run_lengths
    assert mask["size"] == [40, 60]
    window = encoded_window(mask)
    assert (window.x, window.y) == (0, 0)
    np.testing.assert_array_equal(window.pixels, np.ones((40, 30)))
    assert found.masks is not None
    np.testing.assert_array_equal(found.masks, [np.arange(60)[None].repeat(40, 0) < 30])


def test_a_detector_of_boxes_has_no_masks() -> None:
    found = whole_image_predictor(WholeImage())(noise(40, 60))
    assert found.masks is None
    assert found.windows() is None
    assert [one.mask for one in found] == [None]
