"""The oracle: Detectron2's C4, DC5 and FPN detectors, and ours with their converted weights."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close
from torchvision.ops import roi_align

from resdet.config import BoxHeadConfig, MaskHeadConfig, ModelConfig, NeckConfig
from resdet.data.batches.collate import size_divisor
from resdet.models.backbones import BACKBONES
from resdet.models.backbones.resnet import Bottleneck, ResNet
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.models.second_stage import mask_head
from resdet.models.second_stage.mask_head import mask_loss
from resdet.ops.masks import HALF, coverage
from resdet.predict.predictor import Predictor
from resdet.structures import Batch, Targets
from resdet.weights import WeightContract, load_checked, to_rgb
from resdet.weights.convert import from_detectron2

FIXTURES = Path(__file__).resolve().parents[2] / "../shared/fixtures/detectron2"
NAMES = ["faster_rcnn_R50_C4_tiny", "faster_rcnn_R50_DC5_tiny", "mask_rcnn_R50_C4_tiny", "mask_rcnn_R50_FPN_tiny"]
TINY = partial(ResNet, partial(Bottleneck, stride_in_1x1=True), (3, 4, 6, 3), stem_channels=8, c2_channels=16)


ZOO = [
    ("mask_rcnn_R_101_FPN_3x", "resnet101", "fpn"),
    ("faster_rcnn_R_101_C4_3x", "resnet101", "c4"),
    ("faster_rcnn_R_50_DC5_3x", "resnet50", "dc5"),
    ("mask_rcnn_R_50_C4_3x", "resnet50", "c4"),
]


def our_config(theirs: dict[str, Any], contract: WeightContract) -> ModelConfig:
    """Their settings under our keys."""
    config = ModelConfig(pixel_mean=list(contract.pixel_mean), pixel_std=list(contract.pixel_std))
    config.backbone.name, config.backbone.frozen_stages = "tiny", 0
    config.neck.name = {"res4": "c4", "res5": "dc5", "p2": "fpn"}[theirs["RPN"]["IN_FEATURES"][0]]
    config.neck.channels = theirs["FPN"]["OUT_CHANNELS"]
    config.anchors.sizes = [float(size) for level in theirs["ANCHOR_GENERATOR"]["SIZES"] for size in level]
    config.rpn.pre_nms_test, config.rpn.proposals_test = (
        theirs["RPN"]["PRE_NMS_TOPK_TEST"],
        theirs["RPN"]["POST_NMS_TOPK_TEST"],
    )
    box = theirs["ROI_BOX_HEAD"]
    assert config.box_head is not None
    config.box_head.resolution, config.box_head.sampling_ratio = box["POOLER_RESOLUTION"], box["POOLER_SAMPLING_RATIO"]
    config.box_head.fc_dim, config.box_head.detections = box["FC_DIM"], theirs["DETECTIONS_PER_IMAGE"]
    if "ROI_MASK_HEAD" in theirs:
        mask = theirs["ROI_MASK_HEAD"]
        resolution, sampling_ratio = mask["POOLER_RESOLUTION"], mask["POOLER_SAMPLING_RATIO"]
        config.mask_head = MaskHeadConfig("fcn", mask["NUM_CONV"], mask["CONV_DIM"], "none", resolution, sampling_ratio)
    return config


@pytest.fixture(params=NAMES)
def oracle(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[RCNN, dict[str, Tensor]]:
    """Our detector with Detectron2's weights, and what Detectron2 computes with them."""
    file = FIXTURES / f"{request.param}.config.json"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    converted = from_detectron2(load_file(FIXTURES / f"{request.param}.weights.safetensors"), request.param)
    state, contract, _ = to_rgb(converted.state, converted.contract)
    model = build_model(our_config(json.loads(file.read_text()), contract), num_classes=5).eval()
    assert load_checked(model, state, source=request.param, required=1.0).unexpected == ()
    return model, load_file(FIXTURES / f"{request.param}.expected.safetensors")


def as_batch(expected: dict[str, Tensor]) -> Batch:
    """Their image in our channel order, padded to a multiple of 32 as theirs."""
    image = expected["image_bgr_uint8"].flip(0)[None]
    return Batch(image, torch.tensor([image.shape[-2:]]))


@pytest.mark.realdata
@torch.no_grad()
def test_same_weights_give_the_same_features_proposals_detections_and_masks(
    oracle: tuple[RCNN, dict[str, Tensor]],
) -> None:
    model, expected = oracle
    batch = as_batch(expected)
    features = model.neck(model.backbone(model.normalized(batch)))
    maps = [expected[name] for name in sorted(expected) if name.startswith("feature.")]
    for ours, theirs in zip(features, maps, strict=True):
        assert_close(ours / theirs.std(), theirs / theirs.std(), atol=1e-4, rtol=1e-4)

    proposals = model.rpn.proposals(model.rpn(features), batch.sizes, model.test_limits)
    assert proposals.valid[0, :200].all()
    assert_close(proposals.scores[0, :200], expected["objectness_logits"], atol=1e-4, rtol=1e-4)
    assert_close(proposals.boxes[0, :200], expected["proposal_boxes"], atol=0.01, rtol=0)

    detections = model.predict(batch)
    assert detections.valid.all()
    assert_close(detections.labels[0], expected["classes"])
    assert_close(detections.scores[0], expected["scores"], atol=1e-4, rtol=0)
    assert_close(detections.boxes[0], expected["boxes"], atol=0.01, rtol=0)
    assert (detections.masks is None) == ("masks" not in expected)
    if detections.masks is not None:
        assert expected["masks"].std() > 0.01, "the weights must give masks to compare"
        assert_close(detections.masks[0], expected["masks"][:, 0], atol=1e-4, rtol=0)


def predictor_of(model: RCNN, size: tuple[int, int]) -> Predictor:
    """Takes images of `size` as they are, and pads them as the layout needs."""
    config = ModelConfig(neck=NeckConfig(name="fpn" if len(model.neck.strides) > 1 else "c4"))
    return Predictor(model, short_side=min(size), max_side=max(size), size_divisor=size_divisor(config))


@pytest.mark.realdata
def test_prediction_of_an_image_gives_detectron2s_detections(oracle: tuple[RCNN, dict[str, Tensor]]) -> None:
    model, expected = oracle
    image = expected["image_bgr_uint8"].flip(0).permute(1, 2, 0).contiguous().numpy()
    (found,) = predictor_of(model, image.shape[:2])([image])
    assert_close(torch.from_numpy(found.labels), expected["classes"])
    assert_close(torch.from_numpy(found.scores), expected["scores"], atol=1e-4, rtol=0)
    assert_close(torch.from_numpy(found.boxes), expected["boxes"], atol=0.01, rtol=0)


@pytest.mark.realdata
@pytest.mark.parametrize("oracle", [name for name in NAMES if "FPN" not in name], indirect=True)
@pytest.mark.parametrize("size", [(150, 210), (131, 223), (160, 199)])
def test_a_single_map_sees_an_image_of_any_size_without_padding(
    oracle: tuple[RCNN, dict[str, Tensor]], size: tuple[int, int]
) -> None:
    """Detectron2 gives the net the image itself (`size_divisibility` is 0); padding to 32 gives other detections."""
    model, expected = oracle
    image = expected["image_bgr_uint8"].flip(0)[:, : size[0], : size[1]].contiguous()
    (found,) = predictor_of(model, size)([image.permute(1, 2, 0).numpy()])
    itself = model.predict(Batch(image[None], torch.tensor([size])))
    valid = itself.valid[0]
    assert_close(torch.from_numpy(found.scores), itself.scores[0, valid], atol=1e-6, rtol=0)
    assert_close(torch.from_numpy(found.boxes), itself.boxes[0, valid], atol=1e-3, rtol=0)
    padded = torch.nn.functional.pad(image[None], (0, -size[1] % 32, 0, -size[0] % 32))
    others = model.predict(Batch(padded, torch.tensor([size])))
    assert not torch.allclose(others.scores[0], itself.scores[0], atol=1e-4)


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "backbone", "layout"), ZOO)
def test_a_detector_of_the_zoo_has_the_names_and_shapes_of_ours(name: str, backbone: str, layout: str) -> None:
    file = FIXTURES / "detectron2_state_dict_keys.json"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    zoo = {key.rpartition("/")[2]: listing for key, listing in json.loads(file.read_text()).items()}
    with torch.device("meta"):
        converted = from_detectron2({key: torch.empty(shape) for key, shape in zoo[name].items()}, name)
        config = ModelConfig()
        config.backbone.name, config.neck.name, config.box_head = backbone, layout, BoxHeadConfig(resolution=7)
        config.mask_head = MaskHeadConfig() if name.startswith("mask_rcnn") else None
        model = build_model(config, num_classes=80)
    ours = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in converted.state.items()} == ours


EVERY = 10**6  # a budget that samples every candidate, so that chance plays no part
LOSSES = {
    "loss_classifier": "loss_cls",
    "loss_box_reg": "loss_box_reg",
    "loss_objectness": "loss_rpn_cls",
    "loss_rpn_box_reg": "loss_rpn_loc",
    "loss_mask": "loss_mask",
}


def learner(name: str) -> tuple[RCNN, dict[str, Tensor]]:
    """Our detector under Detectron2's training settings with its weights, and what its training step computes."""
    file = FIXTURES / f"{name}.config.json"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    converted = from_detectron2(load_file(FIXTURES / f"{name}.weights.safetensors"), name)
    state, contract, _ = to_rgb(converted.state, converted.contract)
    config = our_config(json.loads(file.read_text()), contract)
    config.rpn.batch_size_per_image, config.rpn.positive_fraction = EVERY, 1.0
    config.rpn.pre_nms_train, config.rpn.proposals_train = 200, 100
    assert config.box_head is not None
    config.box_head.batch_size_per_image, config.box_head.positive_fraction = 10**4, 1.0
    config.backbone.frozen_stages = 2
    model = build_model(config, num_classes=5)
    _ = load_checked(model, state, source=name, required=1.0)
    return model.train(), load_file(FIXTURES / f"{name}.train_step.safetensors")


def targets_of(step: dict[str, Tensor], cells: int = 64) -> Targets:
    """Their ground truth; masks are resampled into the frames of their boxes, as ours are kept."""
    boxes, masks = step["gt_boxes"], None
    objects = len(boxes)
    if "gt_bit_masks" in step:
        regions = torch.cat([torch.arange(objects)[:, None].float(), boxes], dim=1)
        inside = roi_align(step["gt_bit_masks"].float()[:, None], regions, (cells, cells), aligned=True)
        masks = (inside[:, 0] * 255).round().to(torch.uint8)[None]
    ones = torch.ones(1, objects, dtype=torch.bool)
    return Targets(boxes[None], step["gt_classes"][None], ~ones, ones, torch.tensor([1]), masks)


def batch_of(step: dict[str, Tensor], cells: int = 64) -> Batch:
    image = step["image_bgr_uint8"].flip(0)[None]
    return Batch(image, torch.tensor([image.shape[-2:]]), targets_of(step, cells))


class TheirCrop:
    """Detectron2's mask targets (`BitMasks.crop_and_resize`): samples of the whole image's mask, their mean cut at
    one half. In the place of our `crop_masks`; `shares` is our own result, the exact coverage of each cell.
    """

    def __init__(self, step: dict[str, Tensor]) -> None:
        self.masks = step["gt_bit_masks"].float()[:, None]
        self.shares, self.theirs = torch.zeros(0), torch.zeros(0)

    def __call__(self, masks: Tensor, frames: Tensor, index: Tensor, boxes: Tensor, resolution: int) -> Tensor:
        regions = torch.cat([index[0, :, None].float(), boxes[0]], dim=1)
        self.theirs = roi_align(self.masks, regions, (resolution, resolution), 1.0, 0, True)[None, :, 0] >= 0.5
        self.shares = coverage(masks, frames, index, boxes, resolution)
        return self.theirs


def their_gradients(name: str, step: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradients of the parameters that learn, under our names."""
    state = load_file(FIXTURES / f"{name}.weights.safetensors")
    given = {key: step.get(f"grad.{key}", torch.full_like(value, torch.nan)) for key, value in state.items()}
    converted = from_detectron2(given, name).state
    return {key: value for key, value in converted.items() if not value.isnan().any()}


@pytest.mark.realdata
@pytest.mark.parametrize("name", NAMES)
def test_one_training_step_has_the_losses_and_gradients_of_detectron2(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their rule for mask targets, which is the only part that differs (see the next test)."""
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    model, step = learner(name)
    if "gt_bit_masks" in step:
        monkeypatch.setattr(mask_head, "crop_masks", TheirCrop(step))
    losses = model(batch_of(step))
    theirs = {ours: step[f"loss.{their}"] for ours, their in LOSSES.items() if f"loss.{their}" in step}
    assert losses.keys() == theirs.keys()
    for loss, expected in theirs.items():
        assert_close(losses[loss], expected, atol=0, rtol=2e-6, msg=lambda text, loss=loss: f"{loss}: {text}")
    _ = torch.stack(list(losses.values())).sum().backward()
    gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    expected = their_gradients(name, step)
    assert len(expected) == sum(key.startswith("grad.") for key in step)
    assert gradients.keys() == expected.keys(), "the same parameters learn"
    for key, gradient in gradients.items():
        assert (gradient - expected[key]).norm() <= 5e-5 * expected[key].norm(), key


@pytest.mark.realdata
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("mask")])
def test_mask_targets_differ_from_detectron2_in_few_cells_that_an_object_covers_by_half(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell is foreground if the object covers half of it. Detectron2 estimates the share by samples, and ours is the
    exact mean of a mask of 64 x 64 cells a box, so that they may differ on a cell that is covered by half. This, and
    nothing else, separates the mask losses: by 7e-4 with 64 cells a box, by 1.1e-4 with 128 and with any finer frame.
    """
    monkeypatch.setitem(BACKBONES, "tiny", TINY)
    model, step = learner(name)
    crop = TheirCrop(step)
    expected = step["loss.loss_mask"]
    assert_close(model(batch_of(step, cells=64))["loss_mask"], expected, atol=0, rtol=7e-4)
    assert_close(model(batch_of(step, cells=128))["loss_mask"], expected, atol=0, rtol=1.1e-4)

    counted: list[Tensor] = []
    monkeypatch.setattr(mask_head, "crop_masks", crop)
    monkeypatch.setattr(mask_head, "mask_loss", lambda *given: counted.append(given[-1]) or mask_loss(*given))
    _ = model(batch_of(step, cells=128))
    shares, theirs = crop.shares[counted[0]], crop.theirs[counted[0]]
    differing = shares[(shares >= HALF) != theirs]
    assert len(differing) <= 2e-3 * shares.numel()
    assert ((differing - 0.5).abs() < 0.05).all()
