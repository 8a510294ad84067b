"""Choices of the box head: one box for all classes, weights of classes, and which regions teach."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from resdet.config import load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.box_head import BoxPredictor
from resdet.models.second_stage.detections import class_candidates
from resdet.models.second_stage.roi_heads import RoIHeads
from resdet.ops.matching import Matcher
from resdet.structures import Batch, Proposals, Targets

CLASSES = 3
NANO = Path(__file__).parents[3] / "configs/nano.yaml"


def model_of(*overrides: str) -> RCNN:
    _ = torch.manual_seed(0)
    small = ["model.box_head={score_threshold: 0.0, detections: 10}", *overrides]
    return build_model(load_config(NANO, overrides=small).model, CLASSES)


def heads_of(model: RCNN) -> RoIHeads:
    assert model.roi_heads is not None
    return model.roi_heads


def small_batch() -> Batch:
    boxes = torch.tensor([[[10.0, 10, 30, 40], [30, 5, 60, 30]], [[5, 5, 25, 25], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, True], [True, False]])
    targets = Targets(boxes, torch.tensor([[0, 2], [1, 0]]), ~valid & valid, valid, torch.tensor([1, 2]))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.tensor([[64, 64], [60, 50]]), targets)


def test_a_class_agnostic_predictor_gives_one_box() -> None:
    logits, deltas = BoxPredictor(8, CLASSES, class_agnostic=True)(torch.randn(5, 8))
    assert logits.shape == (5, CLASSES + 1)
    assert deltas.shape == (5, 1, 4)


def test_class_agnostic_heads_are_class_wise_ones_whose_classes_agree() -> None:
    agnostic, wise = model_of("model.box_head.class_agnostic=true"), model_of()
    state = agnostic.state_dict()
    for kind in ("weight", "bias"):
        name = f"roi_heads.box_predictor.bbox_pred.{kind}"
        state[name] = torch.cat([state[name]] * CLASSES)
    _ = wise.load_state_dict(state)
    batch = small_batch()
    expected = wise(batch)
    for name, loss in agnostic(batch).items():
        assert_close(loss, expected[name])
    found, wanted = agnostic.eval().predict(batch), wise.eval().predict(batch)
    assert found.valid.any()
    assert_close(found.boxes, wanted.boxes)
    assert_close(found.scores, wanted.scores)
    assert_close(found.labels, wanted.labels)


def test_every_class_of_a_proposal_shares_its_one_box() -> None:
    boxes = torch.tensor([[[[1.0, 2, 30, 40]], [[5, 5, 9, 9]]]])
    probabilities = torch.tensor([[[0.5, 0.3, 0.2], [0.6, 0.1, 0.3]]])
    valid = torch.tensor([[True, False]])
    found = class_candidates(boxes, probabilities, valid, torch.tensor([[20, 64]]), score_threshold=0.4)
    assert_close(found.boxes[0, :2], torch.tensor([[1.0, 2, 30, 20]] * 2))  # cut to the image
    assert found.labels.tolist() == [[0, 1, 0, 1]]
    assert found.valid.tolist() == [[True, False, False, False]]


@pytest.mark.parametrize("weights", ["[1, 1, 1]", "[1, 1, 1, 1]"])
def test_class_weights_of_one_change_nothing(weights: str) -> None:
    batch = small_batch()
    expected = model_of()(batch)
    for name, loss in model_of(f"model.box_head.class_weights={weights}")(batch).items():
        assert_close(loss, expected[name])


def test_the_background_has_the_last_class_weight_or_one() -> None:
    def weights(text: str) -> torch.Tensor | None:
        return heads_of(model_of(f"model.box_head.class_weights={text}")).region_loss.classification.class_weights

    assert_close(weights("[2, 3, 4]"), torch.tensor([2.0, 3, 4, 1]))
    assert_close(weights("[2, 3, 4, 0.5]"), torch.tensor([2.0, 3, 4, 0.5]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("class_weights=[1, 2]", "class_weights has 2 numbers for 3 classes; give one for each class, or 4"),
        ("class_weights=[0, 0, 0, 1]", "no class would be learned; give at least one a number above 0"),
        ("class_weights=[1, 2, -1]", "numbers of at least 0"),
        ("box_loss=diou", "box_loss=diou is not known; did you mean"),
        ("classification_loss=focus", "did you mean 'focal'"),
        ("focal_gamma=-1", "focal_gamma=-1 must be a number of at least 0"),
        ("background_iou_low=1.5", "at most 1"),
        ("background_iou_low=0.6", "background_iou_low=0.6 must be below model.box_head.foreground_iou=0.5"),
    ],
)
def test_a_value_that_means_nothing_is_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        _ = model_of(f"model.box_head.{override}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["box_loss=giou", "box_loss_weight=10"],
        ["box_loss=ciou", "class_agnostic=true"],
        ["classification_loss=focal"],
        ["name=four_conv_fc", "norm=gn", "classification_loss=focal", "class_weights=[1, 2, 3, 0.5]"],
    ],
)
def test_every_parameter_gets_a_finite_gradient(overrides: list[str]) -> None:
    model = model_of(*(f"model.box_head.{override}" for override in overrides))
    losses = model(small_batch())
    _ = torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.roi_heads is not None
    assert all(parameter.grad.any() for parameter in model.roi_heads.parameters() if parameter.grad is not None)


def test_regions_below_the_low_bound_are_no_background() -> None:
    """A ground truth of 10 x 10 and parts of it that cover 0.6, 0.3, 0.05 of it, and none."""
    boxes = torch.tensor([[[0.0, 0, 10, 6], [0, 0, 10, 3], [0, 0, 10, 0.5], [20, 20, 30, 30]]])
    truth = torch.tensor([[[0.0, 0, 10, 10]]])
    one = torch.ones(1, 1, dtype=torch.bool)
    matches = Matcher(0.5, 0.5, background_iou_low=0.1)(boxes, truth, ~one, one)
    assert matches.positive.tolist() == [[True, False, False, False]]
    assert matches.negative.tolist() == [[False, True, False, False]]


def test_regions_below_the_low_bound_are_not_sampled() -> None:
    model = model_of("model.box_head.background_iou_low=0.1")
    truth = torch.tensor([[[0.0, 0, 10, 10]]])
    one = torch.ones(1, 1, dtype=torch.bool)
    targets = Targets(truth, torch.tensor([[1]]), ~one, one, torch.tensor([0]))
    boxes = torch.tensor([[[0.0, 0, 10, 3], [20, 20, 30, 30]]])
    regions = heads_of(model).sample(Proposals(boxes, torch.zeros(1, 2), torch.ones(1, 2).bool()), targets)
    kept = regions.boxes[0, regions.valid[0]]
    assert_close(kept, torch.stack([truth[0, 0], boxes[0, 0]]))  # the ground truth joins, and comes first
    assert regions.labels[0, regions.valid[0]].tolist() == [1, CLASSES]
