"""Soft-NMS and weighted box fusion: pencils, laws, and plain loops over boxes as the oracle."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from resdet.config import load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.models.second_stage.detections import DetectionLimits, suppressed
from resdet.structures import Detections
from resdet.test_time.build import build_detector
from resdet.test_time.fusion import fused
from resdet.test_time.soft_nms import softly_suppressed

LIMITS = DetectionLimits(score_threshold=0.05, nms_iou=0.5, detections=8)
Row = tuple[list[float], float, int]  # box, score, label

ONE: Row = ([0.0, 0.0, 10.0, 10.0], 0.9, 0)
HALF: Row = ([0.0, 0.0, 10.0, 5.0], 0.8, 0)  # overlaps by one half
FAR: Row = ([20.0, 0.0, 30.0, 10.0], 0.7, 0)
OTHER: Row = ([0.0, 0.0, 10.0, 10.0], 0.6, 1)  # of another class
PADDING: Row = ([0.0, 0.0, 10.0, 10.0], 0.0, 0)


def found(*images: list[Row]) -> Detections:
    most = max(map(len, images))
    padded = [[*rows, *[PADDING] * (most - len(rows))] for rows in images]
    scores = torch.tensor([[row[1] for row in rows] for rows in padded])
    boxes, labels = (torch.tensor([[row[place] for row in rows] for rows in padded]) for place in (0, 2))
    return Detections(boxes, scores, labels, scores > 0)


def rows(detections: Detections, image: int = 0) -> list[Row]:
    valid = detections.valid[image]
    columns = (getattr(detections, name)[image][valid].tolist() for name in ("boxes", "scores", "labels"))
    return list(zip(*columns, strict=True))


def crowd(seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(40, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 4 + torch.rand(40, 2, generator=generator) * 12], dim=-1)
    scores = torch.rand(40, generator=generator) * 0.9 + 0.06
    labels = torch.randint(0, 3, (40,), generator=generator)
    return list(zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True))


def iou(first: list[float], second: list[float]) -> float:
    sides = [min(first[2 + k], second[2 + k]) - max(first[k], second[k]) for k in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def soft_nms_by_loop(boxes: list[Row], sigma: float) -> list[Row]:
    """Figure 2 of the paper, class by class."""
    result = []
    for label in {row[2] for row in boxes}:
        rest = [row for row in boxes if row[2] == label]
        while rest:
            best = max(rest, key=lambda row: row[1])
            rest.remove(best)
            result.append(best)
            rest = [(box, score * math.exp(-(iou(best[0], box) ** 2) / sigma), label) for box, score, label in rest]
    kept = sorted((row for row in result if row[1] > LIMITS.score_threshold), key=lambda row: -row[1])
    return kept[: LIMITS.detections]


def fusion_by_loop(boxes: list[Row], threshold: float, views: int) -> list[Row]:
    """Section 3 of the paper, class by class."""
    result = []
    for label in {row[2] for row in boxes}:
        clusters: list[list[Row]] = []

        def mean(cluster: list[Row]) -> list[float]:
            total = sum(row[1] for row in cluster)
            return [sum(row[0][side] * row[1] for row in cluster) / total for side in range(4)]

        for row in sorted((row for row in boxes if row[2] == label), key=lambda row: -row[1]):
            overlaps = [iou(mean(cluster), row[0]) for cluster in clusters]
            if overlaps and max(overlaps) > threshold:
                clusters[overlaps.index(max(overlaps))].append(row)
            else:
                clusters.append([row])
        for cluster in clusters:
            score = sum(row[1] for row in cluster) / len(cluster) * min(len(cluster), views) / views
            result.append((mean(cluster), score, label))
    kept = sorted((row for row in result if row[1] > LIMITS.score_threshold), key=lambda row: -row[1])
    return kept[: LIMITS.detections]


def assert_same(ours: list[Row], oracle: list[Row]) -> None:
    assert [row[2] for row in ours] == [row[2] for row in oracle]
    for place in (0, 1):
        assert_close(torch.tensor([row[place] for row in ours]), torch.tensor([row[place] for row in oracle]))


def test_an_overlapping_box_loses_score_by_pencil() -> None:
    kept = rows(softly_suppressed(found([HALF, ONE, FAR, OTHER]), LIMITS, sigma=0.5))
    lowered = 0.8 * math.exp(-0.25 / 0.5)
    assert_same(kept, [ONE, FAR, OTHER, (HALF[0], lowered, 0)])


def test_boxes_that_do_not_overlap_keep_their_scores_as_in_nms() -> None:
    apart = found([FAR, ONE, OTHER])
    assert rows(softly_suppressed(apart, LIMITS, sigma=0.5)) == rows(suppressed(apart, LIMITS))


def test_an_image_without_candidates_stays_empty_beside_another() -> None:
    kept = softly_suppressed(found([], [ONE]), LIMITS, sigma=0.5)
    assert not kept.valid[0].any()
    assert not kept.boxes[0].any()
    assert_same(rows(kept, 1), [ONE])


@pytest.mark.parametrize("seed", range(4))
def test_soft_nms_equals_the_papers_loop_also_in_a_batch(seed: int) -> None:
    images = [crowd(seed), crowd(seed + 10)[:17], []]
    kept = softly_suppressed(found(*images), LIMITS, sigma=0.3)
    for image, boxes in enumerate(images):
        assert_same(rows(kept, image), soft_nms_by_loop(boxes, 0.3))


def test_fused_boxes_by_pencil() -> None:
    """Two boxes of 0.9 and 0.8 that overlap by one half, and a box that one view of two has alone."""
    kept = rows(fused(found([HALF, ONE, FAR]), LIMITS, iou=0.4, views=2))
    mean = [0.0, 0.0, 10.0, (0.9 * 10 + 0.8 * 5) / 1.7]
    assert_same(kept, [(mean, 0.85, 0), (FAR[0], 0.35, 0)])


def test_equal_boxes_of_all_views_stay_as_they_are() -> None:
    kept = rows(fused(found([ONE, ONE, ONE, OTHER, OTHER, OTHER]), LIMITS, iou=0.5, views=3))
    assert_same(kept, [ONE, OTHER])


@pytest.mark.parametrize("seed", range(4))
def test_fusion_equals_the_papers_loop_also_in_a_batch(seed: int) -> None:
    images = [crowd(seed), crowd(seed + 10)[:17], []]
    kept = fused(found(*images), LIMITS, iou=0.3, views=2)
    for image, boxes in enumerate(images):
        assert_same(rows(kept, image), fusion_by_loop(boxes, 0.3, 2))


def test_both_are_parts_of_the_config() -> None:
    config = load_config(
        "nano", overrides=["test.soft_nms.sigma=0.4", "test.augmentation.flip=true", "test.fusion.iou=0.6"]
    )
    detector = build_detector([build_model(config.model, 3)], config)
    assert detector.merge.keywords == {"iou": 0.6, "views": 2}  # pyright: ignore
    assert detector.detector.suppress.keywords == {"sigma": 0.4}  # pyright: ignore


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["test.fusion.iou=0.5"], "several views"),
        (["test.augmentation.flip=true", "test.fusion={}", "test.voting={}"], "two means"),
    ],
)
def test_fusion_without_views_or_beside_voting_is_a_mistake(overrides: list[str], said: str) -> None:
    config = load_config("nano", overrides=overrides)
    with pytest.raises(UserError, match=said):
        _ = build_detector([build_model(config.model, 3)], config)
