"""Builds the detector for evaluation from one or several trained models and `config.test`; only this file of the folder
reads a config.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from torch import nn

from resdet.config import Config, TestConfig
from resdet.data.batches.collate import size_divisor
from resdet.errors import UserError
from resdet.models.second_stage.detections import suppressed
from resdet.test_time.augmentation import AugmentedDetector
from resdet.test_time.fusion import fused
from resdet.test_time.region_detector import RegionDetector
from resdet.test_time.soft_nms import softly_suppressed

Model = TypeVar("Model", bound=nn.Module)
MAX_ENLARGEMENT = 8  # limit of the sides of a view; memory grows with its square


def build_detector(models: Sequence[Model], config: Config) -> Model | RegionDetector | AugmentedDetector:
    """The models with the parts of `config.test` around them, with the same `predict` as a model; a single model
    without such parts is returned unchanged.

    Raises UserError for parts that cannot be combined, and for models that have no second stage to add them to.
    """
    test, short_side = config.test, config.data.augment.test_short_side
    if len(models) == 1 and replace(test, compile=False) == TestConfig():
        return models[0]
    _check(test, short_side)
    iou = test.voting.iou if test.voting else None
    detector = RegionDetector(
        models,
        factors=[side / short_side for side in test.scales or [short_side]],
        refinement_iou=test.refinement.nms_iou if test.refinement else None,
        voting_iou=None if test.augmentation else iou,  # all detections of all views vote
        suppress=partial(softly_suppressed, sigma=test.soft_nms.sigma) if test.soft_nms else suppressed,
        size_divisor=size_divisor(config.model),
    )
    if test.augmentation is None:
        return detector
    sides = _short_sides(test) or [short_side]
    factors = [side / short_side for side in sides]
    views = len(factors) * (2 if test.augmentation.flip else 1)
    merge = partial(fused, iou=test.fusion.iou, views=views) if test.fusion else None
    return AugmentedDetector(detector, factors=factors, flip=test.augmentation.flip, merge=merge, voting_iou=iou)


def _check(test: TestConfig, short_side: int) -> None:
    if test.crops != "center":
        raise UserError(f"test.crops={test.crops} is for task=classification; leave it out")
    if test.scales and test.augmentation and test.augmentation.short_sides:
        raise UserError(
            "test.scales and test.augmentation.short_sides are two ways to test at several scales; leave one out"
            " (test.augmentation.flip goes with both)"
        )
    if test.fusion and not test.augmentation:
        raise UserError(
            "test.fusion joins the boxes of several views; add test.augmentation.flip=true, or leave it out"
        )
    if test.fusion and test.voting:
        raise UserError("test.fusion and test.voting are two means of boxes; leave one out")
    sides = {"test.scales": test.scales, "test.augmentation.short_sides": _short_sides(test)}
    for key, values in sides.items():
        if values and max(values) > MAX_ENLARGEMENT * short_side:
            raise UserError(
                f"{key}={values}: enlarges images more than {MAX_ENLARGEMENT} times, from their "
                f"data.augment.test_short_side={short_side}; leave {max(values)} out"
            )


def _short_sides(test: TestConfig) -> list[int]:
    return test.augmentation.short_sides if test.augmentation else []
