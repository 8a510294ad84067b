"""Cascade R-CNN: each stage learns on the boxes of the one before; of one stage it is the plain second stage."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from resdet.config import load_config
from resdet.errors import UserError
from resdet.models.build.detector import build_model
from resdet.models.losses import Regions
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.box_head import BoxPredictor
from resdet.models.second_stage.regions import positives_first
from resdet.models.second_stage.roi_heads import RoIHeads, scaled_gradient
from resdet.ops.box_coder import BoxCoder
from resdet.ops.boxes import clip_boxes
from resdet.structures import Batch, Proposals, Targets
from resdet.weights.convert import from_detectron2

CLASSES = 4
ROOT = Path(__file__).parents[3]
THREE = "model.cascade={}"
ONE = "model.cascade={ious: [0.5], delta_weights: [[10, 10, 5, 5]]}"


def small_model(*overrides: str) -> RCNN:
    _ = torch.manual_seed(0)
    small = (
        "model.backbone={name: nano, norm: gn, frozen_stages: 0}", "model.neck.channels=16",
        "model.rpn={pre_nms_train: 100, proposals_train: 50, pre_nms_test: 100, proposals_test: 50}",
        "model.box_head={batch_size_per_image: 32, fc_dim: 32, resolution: 3, score_threshold: 0.0}",
    )  # fmt: skip
    model = build_model(load_config(overrides=[*small, *overrides]).model, CLASSES)
    with torch.no_grad():  # scores and boxes that differ, so that orders are stable
        for name, parameter in model.named_parameters():
            if "cls_score.weight" in name or "cls_logits.weight" in name:
                _ = parameter.normal_(std=0.5)
            if "bbox_pred.weight" in name:
                _ = parameter.normal_(std=0.1)
    return model


def heads_of(model: RCNN) -> RoIHeads:
    assert model.roi_heads is not None
    return model.roi_heads


def deltas_to(truth: Tensor, boxes: Tensor, stage: int) -> Tensor:
    """The deltas that lead a stage of THREE from boxes to the truth, as a predictor gives them."""
    shift, scale = [(10.0, 5.0), (20.0, 10.0), (30.0, 15.0)][stage]
    return BoxCoder((shift, shift, scale, scale)).encode(truth, boxes)[:, :, None]


NOTHING = torch.zeros(1, 5, 1, 4)  # deltas that leave boxes where they are
SIZE = torch.tensor([[96, 128]])


def random_batch(objects: list[int]) -> Batch:
    """One image for each entry, with that many objects; their masks are full."""
    count, generator = len(objects), torch.Generator().manual_seed(3)
    corner = torch.rand(count, 4, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 10 + torch.rand(count, 4, 2, generator=generator) * 30], dim=-1)
    valid = torch.arange(4) < torch.tensor(objects)[:, None]
    labels = torch.randint(0, CLASSES, (count, 4), generator=generator)
    masks = torch.full((count, 4, 8, 8), 255, dtype=torch.uint8) * valid[..., None, None]
    seeds = torch.arange(count)
    targets = Targets(boxes * valid[..., None], labels * valid, torch.zeros_like(valid), valid, seeds, masks)
    images = torch.randint(0, 256, (count, 3, 96, 128), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.tensor([[96 - 8 * i, 100 + 7 * i] for i in range(count)]), targets)


def tensors(noun: object) -> dict[str, Tensor]:
    return {name: value for name, value in vars(noun).items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("context", ["model.box_head.global_context=true", "model.box_head.global_context=false"])
def test_one_stage_is_the_plain_second_stage(context: str) -> None:
    """Weights, losses and detections, bit for bit."""
    cascade, plain = small_model(ONE, context), small_model("model.box_head.class_agnostic=true", context)
    _ = plain.load_state_dict(cascade.state_dict())
    batch = random_batch([3, 0, 2])
    losses, expected = cascade(batch), plain(batch)
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert_close(value, expected[name], rtol=0, atol=0)
    for name, value in tensors(cascade.eval().predict(batch)).items():
        assert_close(value, tensors(plain.eval().predict(batch))[name], rtol=0, atol=0)


def test_parameters_have_the_names_of_detectron2() -> None:
    names = {name for name in small_model(THREE).state_dict() if name.startswith("roi_heads.")}
    assert names == {
        f"roi_heads.{part}.{stage}.{layer}.{kind}"
        for part, layers in (("box_head", ("fc6", "fc7")), ("box_predictor", ("cls_score", "bbox_pred")))
        for layer in layers
        for stage in range(3)
        for kind in ("weight", "bias")
    }


def test_detectron2s_cascade_fills_ours() -> None:
    """Detectron2 numbers the hidden layers from 1; the rest of the box heads' names are the same."""
    model = small_model(THREE)
    ours = {name: value for name, value in model.state_dict().items() if name.startswith("roi_heads.")}
    theirs = {name.replace("fc6", "fc1").replace("fc7", "fc2"): value for name, value in ours.items()}
    trunk = {"backbone.bottom_up.stem.conv1.weight": torch.zeros(64, 3, 7, 7)}
    converted = from_detectron2(theirs | trunk, "model_final.pkl")
    assert converted.state.keys() - {"backbone.conv1.weight"} == ours.keys()
    assert all(converted.state[name] is value for name, value in ours.items())
    assert converted.contract.roi_align_aligned is True


def test_boxes_refined_by_perfect_deltas_are_the_ground_truth() -> None:
    heads = heads_of(small_model(THREE))
    boxes = torch.tensor([[[10.0, 10, 40, 50], [0, 0, 20, 20]]])
    truth = torch.tensor([[[12.0, 8, 44, 47], [1, 1, 15, 25]]])
    two = torch.ones(1, 2, dtype=torch.bool)
    targets = Targets(truth, torch.tensor([[0, 3]]), ~two, two, torch.tensor([0]))
    before = Regions(boxes, torch.zeros(1, 2).long(), torch.zeros(1, 2).long(), boxes, two)
    for stage in range(3):
        moved = heads.moved(stage, deltas_to(truth, boxes, stage), before, targets, SIZE)
        assert_close(moved.boxes, truth, atol=1e-4, rtol=0)
        assert moved.labels.tolist() == [[0, 3]]


def test_a_later_stage_asks_for_more_overlap() -> None:
    """Against a ground truth of 10 x 10: itself, one shifted by 3.5 (IoU 0.48), parts of it (IoU 0.8 and 0.65), and an
    empty box.
    """
    heads = heads_of(small_model(THREE))
    boxes = torch.tensor([[[0.0, 0, 10, 10], [3.5, 0, 13.5, 10], [0, 0, 10, 8], [0, 0, 10, 6.5], [4, 4, 4, 9]]])
    truth = torch.tensor([[[0.0, 0, 10, 10]]])
    one = torch.ones(1, 1, dtype=torch.bool)
    targets = Targets(truth, torch.tensor([[2]]), ~one, one, torch.tensor([0]))
    before = Regions(boxes, torch.zeros(1, 5).long(), torch.zeros(1, 5).long(), boxes, torch.ones(1, 5).bool())
    second, third = (heads.moved(stage, NOTHING, before, targets, SIZE) for stage in (0, 1))
    background = CLASSES
    assert second.labels[0, :4].tolist() == [2, background, 2, 2]
    assert third.labels[0, :4].tolist() == [2, background, 2, background]
    assert third.valid[0].tolist() == [True, True, True, True, False], "an empty box is no example"
    assert_close(third.matched_boxes[0, 0], truth[0, 0])


def test_a_region_in_a_crowd_is_no_background() -> None:
    heads = heads_of(small_model(THREE))
    boxes = torch.tensor([[[2.0, 2, 8, 8]]])
    one = torch.ones(1, 1, dtype=torch.bool)
    targets = Targets(torch.tensor([[[0.0, 0, 50, 50]]]), torch.tensor([[1]]), one, one, torch.tensor([0]))
    before = Regions(boxes, torch.tensor([[CLASSES]]), torch.tensor([[0]]), boxes, one)
    assert not heads.moved(0, NOTHING[:, :1], before, targets, SIZE).valid.any()


def test_scores_are_the_mean_over_the_stages_and_boxes_those_of_the_last() -> None:
    model = small_model(THREE).eval()
    heads = heads_of(model)
    features = [torch.randn(1, 16, 96 // s, 128 // s) for s in (4, 8, 16, 32)]
    boxes = torch.tensor([[[10.0, 10, 40, 50]]])
    proposals = Proposals(boxes, torch.zeros(1, 1), torch.ones(1, 1).bool())
    expected = []
    for stage in heads.stages:
        vector = stage.box_head(heads.pooler(features, boxes))
        logits, deltas = stage.box_predictor(vector)
        expected.append(logits.softmax(-1)[0, :-1])
        boxes = clip_boxes(stage.box_coder.decode(deltas[None, :, 0], boxes), SIZE)
    found = heads.predict(features, proposals, SIZE)
    scores = torch.stack(expected).mean(0)
    assert_close(found.scores[0, :CLASSES], scores.sort(descending=True).values)
    assert_close(found.boxes[0, :CLASSES], boxes[0].expand(CLASSES, 4))
    last, _ = heads.classify(partial(heads.pooler, features), proposals.boxes, SIZE, first=-1)
    logits, _ = heads.stages[-1].box_predictor(heads.stages[-1].box_head(heads.pooler(features, proposals.boxes)))
    assert_close(last[0], logits.softmax(-1))


def test_a_predictor_that_is_exchanged_is_the_one_that_counts() -> None:
    """As one fine-tunes torchvision's detectors: `model.roi_heads.box_predictor = ...`."""
    heads = heads_of(small_model())
    heads.box_predictor = BoxPredictor(32, CLASSES)
    assert heads.stages[0].box_predictor is heads.box_predictor


@pytest.mark.parametrize("mask", [(), ("model.mask_head={name: fcn, channels: 8, convs: 1, resolution: 4}",)])
def test_every_parameter_gets_a_finite_gradient(mask: tuple[str, ...]) -> None:
    model = small_model(THREE, "model.box_head.global_context=true", *mask)
    losses = model(random_batch([3, 0]))
    stages = {f"loss_{kind}_stage{stage}" for kind in ("classifier", "box_reg") for stage in range(3)}
    assert losses.keys() - {"loss_objectness", "loss_rpn_box_reg"} == stages | ({"loss_mask"} if mask else set())
    _ = torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_batch_without_objects_costs_a_finite_amount() -> None:
    losses = small_model(THREE)(random_batch([0, 0]))
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_box_reg_stage2"] == 0


def test_permuting_the_images_permutes_the_detections_and_leaves_the_losses() -> None:
    model, batch, order = small_model(THREE).eval(), random_batch([1, 2, 3]), [2, 0, 1]
    assert batch.targets is not None
    targets = Targets(**{name: value[order] for name, value in tensors(batch.targets).items()})
    permuted = Batch(batch.images[order], batch.sizes[order], targets)
    for name, value in tensors(model.predict(batch)).items():
        assert_close(tensors(model.predict(permuted))[name], value[order], atol=1e-3, rtol=1e-4)
    for name, loss in model(permuted).items():
        assert_close(loss, model(batch)[name], atol=1e-5, rtol=1e-5)


def test_a_mask_head_learns_on_the_boxes_of_the_last_stage_positives_first() -> None:
    """Two of four regions are positive, in the slots 1 and 3; the sampler keeps at most one."""
    model = small_model(THREE, "model.mask_head={name: fcn, channels: 8, convs: 1, resolution: 4}")
    heads = heads_of(model)
    heads.sampler = replace(heads.sampler, size=4, positive_fraction=0.25)
    seen: list[Tensor] = []
    assert heads.mask_pooler is not None
    _ = heads.mask_pooler.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    features = [torch.randn(1, 16, 96 // s, 128 // s) for s in (4, 8, 16, 32)]
    boxes = torch.tensor([[[0.0, 0, 10, 10], [5, 5, 30, 30], [50, 50, 60, 60], [40, 40, 70, 80]]])
    regions = Regions(boxes, torch.tensor([[4, 1, 4, 2]]), torch.tensor([[0, 0, 0, 1]]), boxes, torch.ones(1, 4).bool())
    targets = random_batch([2]).targets
    assert targets is not None
    assert heads.mask_losses(features, torch.empty(1, 4, 16, 3, 3), regions, targets)["loss_mask"].value > 0
    assert_close(seen[0], boxes[:, [1]])


def test_positives_come_first_and_all_fields_move_together() -> None:
    boxes = torch.arange(16.0).view(1, 4, 4)
    labels, valid = torch.tensor([[4, 1, 2, 3]]), torch.tensor([[True, True, False, True]])
    ordered = positives_first(Regions(boxes, labels, labels * 10, boxes + 1, valid), background=4)
    assert ordered.labels.tolist() == [[1, 3, 4, 2]]  # the background, and what is not valid, behind
    assert ordered.matched.tolist() == [[10, 30, 40, 20]]
    assert ordered.valid.tolist() == [[True, True, True, False]]
    assert_close(ordered.boxes, boxes[:, [1, 3, 0, 2]])
    assert_close(ordered.matched_boxes, boxes[:, [1, 3, 0, 2]] + 1)


def test_a_scaled_gradient_leaves_the_value() -> None:
    x = torch.randn(100).requires_grad_()
    scaled = scaled_gradient(x, 1 / 3)
    assert torch.equal(scaled, x)
    (gradient,) = torch.autograd.grad(scaled.sum(), x)
    assert_close(gradient, torch.full((100,), 1 / 3))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([THREE, "model.neck.name=c4", "model.backbone.name=resnet18"], "model.cascade does not go with model.neck"),
        (["model.cascade.ious=[0.5, 0.6]"], "ious has 2 stages and model.cascade.delta_weights 3"),
        (
            ["model.cascade={ious: [0.5], delta_weights: [[1, 2, 3]]}"],
            "delta_weights=.* must be a list of .* lists of 4 numbers above 0",
        ),
        (["model.cascade={ious: [], delta_weights: []}"], "model.cascade.ious=.* is empty"),
        (["model.cascade.ious=[0.7, 0.5, 0.6]"], r"no less overlap than the one before; write \[0.5, 0.6, 0.7\]"),
        (["model.cascade={ious: [1.5], delta_weights: [[1, 1, 1, 1]]}"], "at most 1"),
        ([THREE, "model.box_head=null"], "model.cascade needs the box head"),
    ],
)
def test_what_does_not_go_together_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        _ = small_model(*overrides)
    assert "\n" not in str(error.value)


def test_without_a_cascade_there_is_one_stage() -> None:
    assert len(heads_of(small_model()).stages) == 1
    assert len(heads_of(small_model(THREE)).stages) == 3


GRAPH = """
import dataclasses, torch
from resdet.config import load_config
from resdet.models.build.detector import build_model
from resdet.structures import Batch, Targets
torch.manual_seed(0)
model = build_model(load_config("configs/nano.yaml", overrides=["model.cascade={{}}", "model.mask_head.name=fcn",
    "model.mask_head.channels=8", "model.box_head.score_threshold=0.0", "model.box_head.box_loss=giou",
    "model.box_head.classification_loss=focal", "model.rpn.box_loss=ciou", "model.rpn.cross_boundary=0"]).model, 5)
corner = torch.rand(2, 4, 2) * 40
valid = torch.arange(4) < torch.tensor([3, 1])[:, None]
masks = torch.full((2, 4, 8, 8), 255, dtype=torch.uint8)
targets = Targets(torch.cat([corner, corner + 20], -1), torch.randint(0, 5, (2, 4)), ~valid & valid, valid,
    torch.arange(2), masks)
batch = Batch(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), torch.tensor([[64, 64], [50, 60]]), targets)
losses, compiled = model(batch), torch.compile(model, fullgraph=True, backend="{backend}")(batch)
torch.testing.assert_close(compiled, losses)
parameters = list(model.parameters())
eager, graph = (torch.autograd.grad(sum(l.values()), parameters, allow_unused=True) for l in (losses, compiled))
torch.testing.assert_close(graph, eager, atol=1e-4, rtol=1e-3)
found = torch.compile(model.eval().predict, fullgraph=True, backend="{backend}")(batch)
torch.testing.assert_close(dataclasses.asdict(found), dataclasses.asdict(model.predict(batch)))
assert found.valid.any()
"""


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_cascade_with_masks_and_chosen_losses_is_one_graph_each_way(backend: str) -> None:
    """In a process of its own, without the type-checking import hook."""
    done = subprocess.run(
        [sys.executable, "-c", GRAPH.format(backend=backend)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
