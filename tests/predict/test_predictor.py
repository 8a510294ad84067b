"""Prediction of images of any size: the evaluation's detections, in pixels of the file, a few images at a time."""

from dataclasses import replace
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
from resdet.models.rcnn import RCNN
from resdet.predict.predictor import ImagePrediction, Predictor, read_ahead
from resdet.structures import Batch, Detections


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_predictions_are_those_of_the_evaluation(model: RCNN, dataset: CocoDataset, config: Config) -> None:
    results = predict_dataset(model, dataset, config)
    predictor = Predictor(model, short_side=64, max_side=64, size_divisor=32)
    assert results.boxes is not None
    assert len(results) > 0
    for index, image_id in enumerate(dataset.image_ids):
        (found,) = predictor.predict([read_image(dataset.path(index))])
        mine = results.image_ids == image_id
        corners = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1)
        np.testing.assert_allclose(corners, results.boxes[mine], atol=1e-4)
        np.testing.assert_allclose(found.scores, results.scores[mine], atol=1e-6)
        np.testing.assert_array_equal(dataset.category_ids[found.labels], results.category_ids[mine])


class WholeImage(RCNN):
    """Finds one object that fills each image, and remembers its batches."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[Batch] = []

    def predict(self, batch: Batch) -> Detections:
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
    (found,) = whole_image_predictor(WholeImage()).predict([noise(*size)])
    np.testing.assert_allclose(found.boxes, [[0, 0, size[1], size[0]]], rtol=1e-6)
    assert found.scores.tolist() == [0.75]
    assert found.labels.tolist() == [0]


def test_an_image_in_a_batch_is_predicted_as_alone(predictor: Predictor) -> None:
    """Both fill 64 x 64 pixels; the order of the batch is that of the images."""
    images = [noise(64, 64, seed=1), noise(64, 64, seed=2)]
    for together, image in zip(predictor.predict(images), images, strict=True):
        (alone,) = predictor.predict([image])
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-5)
        assert together.image is image


def test_no_image_has_no_prediction(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


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
    found = dict(whole_image_predictor(WholeImage()).predict_files(files))
    good = [path for path in files if path.stem != "c"]
    assert [path for path in found if path.stem != "c"] == good
    problem = found[files[2]]
    assert isinstance(problem, ImageError)
    assert "c.png: is a web page" in str(problem)
    for path in good:
        prediction = found[path]
        assert isinstance(prediction, ImagePrediction)
        height, width = read_image(path).shape[:2]
        np.testing.assert_allclose(prediction.boxes, [[0, 0, width, height]], rtol=1e-6)


def test_batches_hold_neighbours_of_one_orientation(files: list[Path]) -> None:
    model = WholeImage()
    _ = list(whole_image_predictor(model, batch_size=2).predict_files(files))
    assert [len(batch.images) for batch in model.batches] == [2, 2, 1, 1]


def test_reading_ahead_is_bounded(files: list[Path]) -> None:
    """Of a thousand files, only those asked for and a few more are touched."""
    taken: list[int] = []

    def many():
        for number in range(1000):
            taken.append(number)
            yield files[0]

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
    (found,) = whole_image_predictor(LeftHalf()).predict([noise(40, 60)])
    assert found.masks is not None
    (mask,) = found.masks
    assert mask["size"] == [40, 60]
    window = encoded_window(mask)
    assert (window.x, window.y) == (0, 0)
    np.testing.assert_array_equal(window.pixels, np.ones((40, 30)))
    windows = found.windows(np.array([False]))
    assert windows == []


def test_a_detector_of_boxes_has_no_masks() -> None:
    (found,) = whole_image_predictor(WholeImage()).predict([noise(40, 60)])
    assert found.masks is None
    assert found.windows(np.array([True])) is None
