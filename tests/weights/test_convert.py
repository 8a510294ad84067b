"""Foreign names become ours, all of them; rows, statistics and channels keep their meaning."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from resdet.config import load_config
from resdet.errors import UserError
from resdet.models.backbones import build_backbone
from resdet.models.backbones.resnet import Bottleneck, ResNet
from resdet.models.build.detector import build_model
from resdet.models.necks import FeaturePyramidNetwork, SubsampledLevel
from resdet.weights.convert import from_detectron2, from_msra
from resdet.weights.convert.msra import unit_variance
from resdet.weights.convert_file import convert_file
from resdet.weights.coverage import load_checked
from resdet.weights.detectron2_zoo import SETS, ZOO

FIXTURES = Path("../shared/fixtures/detectron2")
CAFFE_MEAN = (123.675, 116.28, 103.53)


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


def on_meta(listing):
    return {name: torch.empty(shape, device="meta") for name, shape in listing.items()}


def detector(name="resnet50", *overrides, classes=80):
    config = load_config(overrides=[f"model.backbone.name={name}", *overrides]).model
    with torch.device("meta"):
        return build_model(config, classes)


# Detectron2


@pytest.fixture
def zoo():
    file = FIXTURES / "detectron2_state_dict_keys.json"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    return {name.rpartition("/")[2]: on_meta(listing) for name, listing in json.loads(file.read_text()).items()}


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name",
    ["mask_rcnn_R_101_FPN_3x", "faster_rcnn_R_101_C4_3x", "faster_rcnn_R_50_DC5_3x", "mask_rcnn_R_50_C4_3x"],
)
def test_every_name_of_the_zoo_has_one_place(zoo, name):
    converted = from_detectron2(zoo[name], name)
    assert len(converted.state) == len(zoo[name])
    assert Counter(shapes(converted.state).values()) == Counter(shapes(zoo[name]).values())
    assert converted.notes == ()
    contract = converted.contract
    assert (contract.pixel_mean, contract.pixel_std) == (CAFFE_MEAN, (1.0, 1.0, 1.0))
    assert (contract.channel_order, contract.stride_in_1x1) == ("BGR", True)
    assert (contract.anchors_rounded, contract.roi_align_aligned) == (False, True)


@pytest.mark.realdata
def test_the_zoos_fpn_has_the_names_and_shapes_of_our_detector(zoo):
    theirs = from_detectron2(zoo["mask_rcnn_R_101_FPN_3x"], "zoo").state
    assert shapes(theirs) == shapes(detector("resnet101", "model.mask_head.name=fcn").state_dict())


@pytest.mark.realdata
def test_the_zoos_c4_has_the_names_and_shapes_of_our_backbone_in_two_parts(zoo):
    with torch.device("meta"):
        ours = shapes(build_backbone("resnet101", norm="frozen_bn", frozen_stages=0).state_dict())
    theirs = shapes(from_detectron2(zoo["faster_rcnn_R_101_C4_3x"], "zoo").state)
    trunk = {name.removeprefix("backbone."): shape for name, shape in theirs.items() if name.startswith("backbone.")}
    head = {
        name.removeprefix("roi_heads.box_head."): shape
        for name, shape in theirs.items()
        if name.startswith("roi_heads.box_head.")
    }
    assert trunk | head == ours
    assert all(name.startswith("layer4.") for name in head)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["faster_rcnn_R50_C4_tiny", "mask_rcnn_R50_C4_tiny", "mask_rcnn_R50_FPN_tiny"])
def test_every_tensor_of_the_fixtures_arrives(name):
    file = FIXTURES / f"{name}.weights.safetensors"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    theirs, ours = load_file(file), convert_file(str(file), "detectron2").state
    assert len(ours) == len({key for key in theirs if not key.startswith("pixel_") and "cell_anchors" not in key})
    torch.testing.assert_close(ours["backbone.conv1.weight"], theirs[_stem(theirs)].flip(1))
    torch.testing.assert_close(
        ours["rpn.head.bbox_pred.weight"], theirs["proposal_generator.rpn_head.anchor_deltas.weight"]
    )


class Pyramid(nn.Module):
    """The fixture's backbone and pyramid, of few channels."""

    def __init__(self):
        super().__init__()
        block = partial(Bottleneck, stride_in_1x1=True)
        self.backbone = ResNet(block, (3, 4, 6, 3), stem_channels=8, c2_channels=16)
        self.neck = FeaturePyramidNetwork(self.backbone.channels, self.backbone.strides, 16, extra=SubsampledLevel())

    def forward(self, images):
        return self.neck(self.backbone(images))


@pytest.mark.realdata
def test_converted_weights_compute_detectron2s_features_from_an_rgb_image():
    name = "mask_rcnn_R50_FPN_tiny"
    if not FIXTURES.is_dir():
        pytest.skip(f"{FIXTURES} is not here")
    expected = load_file(FIXTURES / f"{name}.expected.safetensors")
    converted = convert_file(str(FIXTURES / f"{name}.weights.safetensors"), "detectron2")
    model = Pyramid().eval()
    parts = {key: value for key, value in converted.state.items() if key.startswith(("backbone.", "neck."))}
    assert load_checked(model, parts, source=name).ratio == 1.0
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (converted.contract.pixel_mean, converted.contract.pixel_std))
    images = (expected["image_bgr_uint8"].flip(0) - mean) / std
    with torch.no_grad():
        levels = model(images[None])
    for level, ours in zip(("p2", "p3", "p4", "p5", "p6"), levels, strict=True):
        torch.testing.assert_close(ours, expected[f"feature.{level}"], rtol=1e-4, atol=1e-4)


def _stem(state):
    return next(name for name in state if name.endswith("stem.conv1.weight"))


def test_detectron2s_pyramid_and_stages_are_numbered_from_the_finest():
    one = torch.ones(1)
    names = {
        "backbone.bottom_up.stem.conv1.weight": "backbone.conv1.weight",
        "backbone.bottom_up.stem.conv1.norm.running_var": "backbone.bn1.running_var",
        "backbone.bottom_up.res2.0.shortcut.weight": "backbone.layer1.0.downsample.0.weight",
        "backbone.bottom_up.res5.2.conv3.norm.bias": "backbone.layer4.2.bn3.bias",
        "backbone.fpn_lateral2.weight": "neck.inner_blocks.0.0.weight",
        "backbone.fpn_output5.bias": "neck.layer_blocks.3.0.bias",
        "backbone.fpn_output5.norm.weight": "neck.layer_blocks.3.1.weight",
        "roi_heads.box_head.fc2.weight": "roi_heads.box_head.fc7.weight",
        "roi_heads.res5.0.conv2.norm.weight": "roi_heads.box_head.layer4.0.bn2.weight",
    }
    assert list(from_detectron2(dict.fromkeys(names, one), "f").state) == list(names.values())


def test_a_backbone_of_detectron2_loses_its_classifier():
    converted = from_detectron2(
        {
            "stem.conv1.weight": torch.ones(4, 3, 7, 7),
            "stem.conv1.bias": torch.ones(4),
            "stem.fc.weight": torch.ones(1),
        },
        "R-50.pkl",
    )
    assert list(converted.state) == ["backbone.conv1.weight"]
    assert converted.notes == ("left out, resdet has no place for them: stem.conv1.bias, stem.fc.weight",)


def test_resnext_in_detectron2_has_its_stride_in_the_3x3():
    state = {
        "backbone.bottom_up.stem.conv1.weight": torch.ones(64, 3, 7, 7),
        "backbone.bottom_up.res2.0.conv2.weight": torch.ones(256, 8, 3, 3),  # 32 groups of 8
    }
    contract = from_detectron2(state, "X-101-32x8d").contract
    assert contract.pixel_std == (58.395, 57.12, 57.375)  # R, G, B; the file's order is B, G, R
    assert (contract.channel_order, contract.stride_in_1x1) == ("BGR", False)


def test_a_file_that_states_its_pixels_is_believed():
    stem = {"backbone.stem.conv1.weight": torch.ones(64, 3, 7, 7)}
    pixels = {"pixel_mean": torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1), "pixel_std": torch.tensor([4.0, 5.0, 6.0])}
    bgr = from_detectron2(stem | pixels, "f").contract
    assert (bgr.pixel_mean, bgr.pixel_std) == ((3.0, 2.0, 1.0), (6.0, 5.0, 4.0))
    rgb = from_detectron2(stem | pixels, "f", channel_order="RGB").contract
    assert (rgb.pixel_mean, rgb.pixel_std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_names_of_another_format_are_refused_with_examples():
    with pytest.raises(UserError, match=r"^f: 1 of 2 names are not of this format: head\.cls_score\.weight$"):
        _ = from_detectron2({"backbone.stem.conv1.weight": torch.ones(1), "head.cls_score.weight": torch.ones(1)}, "f")
    with pytest.raises(UserError, match="two of its tensors become"):
        _ = from_detectron2({"stem.conv1.weight": torch.ones(1), "backbone.stem.conv1.weight": torch.ones(1)}, "f")


# MSRA


def test_folded_statistics_are_exact():
    assert torch.tensor(unit_variance(1e-5)) + 1e-5 == 1
    scale, offset = torch.tensor([2.0, -3.0, 0.5]), torch.tensor([1.0, 0.0, -7.0])
    state = from_msra(
        {"conv1_w": torch.ones(3, 3, 7, 7), "res_conv1_bn_s": scale, "res_conv1_bn_b": offset}, "R-50.pkl"
    ).state
    mean, variance, weight, bias = (state[f"bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    x = torch.arange(-24.0, 24.0).view(2, 3, 2, 4)  # whole numbers, so that the products below are exact
    expected = scale[:, None, None] * x + offset[:, None, None]
    assert torch.equal(F.batch_norm(x, mean, variance, weight, bias, eps=1e-5), expected)
    assert torch.equal(torch.rsqrt(variance + 1e-5), torch.ones(3))


def test_a_scale_without_its_offset_is_refused():
    with pytest.raises(UserError, match="bn1 has a scale but no offset"):
        _ = from_msra({"conv1_w": torch.ones(3, 3, 7, 7), "res_conv1_bn_s": torch.ones(3)}, "R-50.pkl")


def test_the_other_sets_of_the_zoo_have_their_classes():
    """Pascal VOC has 20 classes, in the order of the alphabet; Cityscapes has 8 whose objects are counted."""
    voc, cityscapes = SETS["voc"].class_names, SETS["cityscapes"].class_names
    assert list(voc) == sorted(set(voc))
    assert (len(voc), len(set(cityscapes))) == (20, 8)
    assert {each.data for each in ZOO.values()} == set(SETS)
