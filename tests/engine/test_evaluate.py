"""Evaluation: a detector that answers with the ground truth scores 1, whatever its images were resized to."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resdet.config import Config, MaskHeadConfig
from resdet.data.batches.collate import ImageInfo, boxes_in_original
from resdet.data.batches.loader import evaluation_batches, open_split, subset
from resdet.data.batches.samplers import sample_seed
from resdet.data.images.masks import box_frame_masks
from resdet.data.sets.coco import CocoDataset
from resdet.engine.evaluate import batch_results, evaluate, predict_dataset, scoring_notes
from resdet.engine.evaluate_checkpoint import evaluate_checkpoint
from resdet.engine.task.detection import Detection, absent_classes
from resdet.engine.train import train
from resdet.errors import UserError
from resdet.evaluation.coco import CocoResults, evaluate_coco, read_ground_truth, read_results
from resdet.structures import Batch, Detections


class Oracle(nn.Module):
    """Finds what the batch's targets say is there."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def predict(self, batch: Batch) -> Detections:
        targets = batch.targets
        assert targets is not None
        return Detections(targets.boxes, targets.valid.float() * 0.9, targets.labels, targets.valid)


def test_boxes_go_back_to_the_original_image_and_stay_inside():
    image = ImageInfo(image_id=1, file_name="a.jpg", height=100, width=200, scale_y=2.0, scale_x=0.5)
    boxes = torch.tensor([[10.0, 20.0, 50.0, 60.0], [-4.0, -4.0, 500.0, 500.0]])
    np.testing.assert_allclose(boxes_in_original(boxes, image), [[20, 10, 100, 30], [0, 0, 200, 100]])


@pytest.mark.parametrize(("side", "batch"), [(64, 1), (96, 3), (160, 4)])
def test_perfect_detections_score_one_at_any_size_and_batch(nano: Config, side: int, batch: int):
    nano.data.augment.test_short_side = nano.data.augment.max_side = side
    nano.eval.batch_size = batch
    metrics = evaluate(Oracle(), open_split(nano.data, "val"), nano)
    assert metrics["bbox/AP"] == pytest.approx(1)
    assert all(value is None or value == pytest.approx(1) for name, value in metrics.items() if name.count("/") == 2)


def test_category_ids_of_the_data_set_come_back(nano: Config, tmp_path: Path):
    dataset = renamed(nano, tmp_path, ids=[90, 1, 17, 4, 55, 6, 700, 8])
    results = predict_dataset(Oracle(), dataset, nano)
    assert set(results.category_ids.tolist()) <= {90, 1, 17, 4, 55, 6, 700, 8}
    assert evaluate(Oracle(), dataset, nano, results=results)["bbox/AP"] == pytest.approx(1)


def test_a_part_of_the_data_is_scored_alone(nano: Config):
    assert evaluate(Oracle(), subset(open_split(nano.data, "train"), 2), nano)["bbox/AP"] == pytest.approx(1)


def test_evaluation_leaves_the_model_in_its_mode(nano: Config):
    model = Oracle().train()
    _ = predict_dataset(model, open_split(nano.data, "val"), nano)
    assert model.training


class Blind(Oracle):
    def predict(self, batch: Batch) -> Detections:
        n = len(batch.images)
        empty: Tensor = torch.zeros(n, 5)
        return Detections(torch.zeros(n, 5, 4), empty, empty.long(), empty.bool())


def test_no_detections_score_zero(nano: Config):
    assert evaluate(Blind(), open_split(nano.data, "val"), nano)["bbox/AP"] == 0


def renamed(config: Config, folder: Path, *, ids: list[int] | None = None, names: list[str] | None = None):
    """The val set with other category ids or names."""
    from resdet.data.sets.formats import read_set

    source: CocoDataset = open_split(config.data, "val")
    truth = json.loads(source.annotations.read_text())
    old = [category["id"] for category in truth["categories"]]
    new = dict(zip(old, ids or old, strict=True))
    for category, name in zip(truth["categories"], names or list(source.class_names), strict=True):
        category |= {"id": new[category["id"]], "name": name}
    for annotation in truth["annotations"]:
        annotation["category_id"] = new[annotation["category_id"]]
    path = folder / "renamed.json"
    _ = path.write_text(json.dumps(truth))
    return read_set(path, source.images)


def test_classes_are_matched_by_name_and_absent_ones_are_said(nano: Config, tmp_path: Path):
    dataset = renamed(nano, tmp_path, ids=[8, 7, 6, 5, 4, 3, 2, 1])
    categories = Detection().category_of_label(("heart", "unicorn", "circle"), dataset)
    assert list(categories.values()) == ["heart", "unicorn", "circle"]
    heart, unicorn, circle = categories
    assert (heart, circle) == (1, 8)
    assert unicorn not in dataset.category_ids
    (warning,) = absent_classes(categories, dataset)
    assert "has no unicorn: left out of the figures" in warning
    with pytest.raises(UserError, match=r"has none of the model's classes \(unicorn"):
        _ = Detection().category_of_label(("unicorn",), dataset)


def test_classes_of_negative_ids_are_scored_like_all_others(nano: Config, tmp_path: Path):
    dataset = renamed(nano, tmp_path, ids=[-1, -2, 0, 5, 4, 3, 2, 1])
    assert sorted(Detection().category_of_label(dataset.class_names, dataset)) == [-2, -1, 0, 1, 2, 3, 4, 5]
    assert evaluate(Oracle(), dataset, nano)["bbox/AP"] == pytest.approx(1)


def test_detections_of_chosen_classes_keep_their_order_and_masks():
    results = CocoResults()
    results.add_columns(
        np.array([1, 1, 2]),
        np.array([7, -3, 7]),
        np.array([0.1, 0.2, 0.3]),
        np.arange(12.0).reshape(3, 4),
        ["a", "b", "c"],
    )
    chosen = results.of_classes(np.array([7, 8]))
    assert chosen.image_ids.tolist() == [1, 2]
    assert chosen.scores.tolist() == [0.1, 0.3]
    assert chosen.segmentations == ["a", "c"]
    assert chosen.boxes is not None
    assert chosen.boxes[1].tolist() == [8, 9, 10, 11]


def test_a_saved_model_scores_what_it_scored_in_training(nano: Config, tmp_path: Path):
    metrics = train(nano, tmp_path / "run")
    again = evaluate_checkpoint(tmp_path / "run", output=tmp_path / "figures").figures
    assert again == metrics
    written = json.loads((tmp_path / "figures/eval.json").read_text())
    assert {name: written[name] for name in metrics} == metrics
    for result in json.loads((tmp_path / "figures/predictions.json").read_text()):
        assert {"image_id", "category_id", "bbox", "score"} == result.keys()
    with pytest.raises(UserError, match="unknown key 'evla'"):
        _ = evaluate_checkpoint(tmp_path / "run", overrides=["evla.backend=auto"])


class MaskOracle(Oracle):
    """Knows the masks as well, in 64 x 64 cells; a sample's seed says which image it is."""

    def __init__(self, dataset: CocoDataset, config: Config) -> None:
        super().__init__()
        self.dataset = dataset
        self.index = {sample_seed(config.train.seed, 0, index): index for index in range(len(dataset))}

    def predict(self, batch: Batch) -> Detections:
        assert batch.targets is not None
        data, found = self.dataset, super().predict(batch)
        masks = torch.zeros(*found.valid.shape, 64, 64)
        for image, seed in zip(masks, batch.targets.seeds.tolist(), strict=True):
            index = self.index[seed]
            rows = np.arange(data.offsets[index], data.offsets[index + 1])
            height, width = int(data.heights[index]), int(data.widths[index])
            cells = box_frame_masks(
                data.segmentations, rows, data.boxes[rows], height=height, width=width, resolution=64
            )
            image[: len(rows)] = torch.from_numpy(cells / np.float32(255))
        return replace(found, masks=masks)


@pytest.fixture
def masked(nano: Config) -> Config:
    nano.model.mask_head = MaskHeadConfig()
    return nano


@pytest.mark.parametrize(("side", "batch"), [(64, 1), (96, 3)])
def test_masks_come_back_through_their_boxes_at_any_size_and_batch(masked: Config, side: int, batch: int):
    masked.data.augment.test_short_side = masked.data.augment.max_side = side
    masked.eval.batch_size = batch
    dataset = open_split(masked.data, "val")
    metrics = evaluate(MaskOracle(dataset, masked), dataset, masked)
    assert metrics["bbox/AP"] == pytest.approx(1)
    assert metrics["segm/AP"] == pytest.approx(1)
    assert {name for name in metrics if name.startswith("segm/")} == {
        name.replace("bbox/", "segm/") for name in metrics if name.startswith("bbox/")
    }


def test_a_results_file_has_masks_that_score_the_same(masked: Config, tmp_path: Path):
    dataset = open_split(masked.data, "val")
    results = predict_dataset(MaskOracle(dataset, masked), dataset, masked)
    metrics = evaluate(MaskOracle(dataset, masked), dataset, masked, results=results)
    _ = (tmp_path / "predictions.json").write_text(json.dumps(results.to_json()))
    truth = dataset.ground_truth()
    read = read_results(tmp_path / "predictions.json", truth)
    again = evaluate_coco(truth, read) | evaluate_coco(truth, read, iou_type="segm")
    assert again == metrics


def test_masks_are_encoded_beside_the_predictions_in_their_order(masked: Config):
    """Also when they take longer than the model, and when the model fails."""
    dataset = open_split(masked.data, "val")
    masked.eval.batch_size = 1
    model = MaskOracle(dataset, masked)
    results = predict_dataset(model, dataset, masked)
    batches = list(evaluation_batches(dataset, masked, rank=0, world_size=1))
    shares = [batch_results(model.predict(loaded.batch), loaded.images, dataset.category_ids) for loaded in batches]
    assert results.to_json() == [entry for share in shares for entry in share.to_json()]
    _ = model.index.popitem()
    with pytest.raises(KeyError):
        _ = predict_dataset(model, dataset, masked)


def with_annotations(config: Config, folder: Path, change: Any) -> CocoDataset:
    """The val set with its annotations changed."""
    from resdet.data.sets.formats import read_set

    source = open_split(config.data, "val")
    truth = json.loads(source.annotations.read_text())
    change(truth["annotations"])
    path = folder / "changed.json"
    _ = path.write_text(json.dumps(truth))
    return read_set(path, source.images)


def test_images_with_objects_without_masks_are_left_out_of_the_figures_of_masks(masked: Config, tmp_path: Path):
    def forget_first(annotations: list[dict[str, Any]]) -> None:
        annotations[0] |= {"segmentation": []}
        annotations[-1] |= {"segmentation": [[1, 2, 3]]}

    dataset = with_annotations(masked, tmp_path, forget_first)
    metrics = evaluate(MaskOracle(dataset, masked), dataset, masked)
    assert metrics["segm/AP"] == metrics["bbox/AP"] == pytest.approx(1)
    (warning,) = scoring_notes(dataset, masked)
    assert f"2 of {len(dataset.boxes)} annotations have no usable mask" in warning
    assert "images with such a one (2) are left out" in warning


def test_data_without_masks_has_no_figures_of_masks(masked: Config, tmp_path: Path):
    def forget(annotations: list[dict[str, Any]]) -> None:
        for annotation in annotations:
            del annotation["segmentation"]

    dataset = with_annotations(masked, tmp_path, forget)
    metrics = evaluate(MaskOracle(dataset, masked), dataset, masked)
    assert metrics["bbox/AP"] == pytest.approx(1)
    assert not any(name.startswith("segm/") for name in metrics)
    assert "no annotation has a mask" in scoring_notes(dataset, masked)[0]
    assert scoring_notes(open_split(masked.data, "val"), masked) == []


def test_no_detections_have_no_masks_and_score_zero(masked: Config):
    metrics = evaluate(Blind(), open_split(masked.data, "val"), masked)
    assert metrics["bbox/AP"] == metrics["segm/AP"] == 0


def test_training_masks_without_a_mask_to_learn_from_is_an_error(masked: Config, tmp_path: Path):
    def forget(annotations: list[dict[str, Any]]) -> None:
        for annotation in annotations:
            del annotation["segmentation"]

    dataset = with_annotations(masked, tmp_path, forget)
    masked.data.train.annotations, masked.data.train.images = str(dataset.annotations), str(dataset.images)
    with pytest.raises(UserError, match=r"no object has a mask .* model\.mask_head=null"):
        _ = train(masked, tmp_path / "run")


def test_a_saved_model_of_masks_scores_what_it_scored_in_training(masked: Config, tmp_path: Path):
    assert masked.model.mask_head
    masked.model.mask_head.channels = 8
    metrics = train(masked, tmp_path / "run")
    assert metrics["segm/AP"] is not None
    assert evaluate_checkpoint(tmp_path / "run", output=tmp_path / "figures").figures == metrics
    for file in (tmp_path / "figures/predictions.json", tmp_path / "run/predictions.json"):
        truth = read_ground_truth(open_split(masked.data, "val").annotations)
        read = read_results(file, truth)
        assert evaluate_coco(truth, read) | evaluate_coco(truth, read, iou_type="segm") == metrics
