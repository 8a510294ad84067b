"""The detection protocol of He et al. 2015 (appendix A and B), clause by clause: docs/he2015.md has the same table.

Each test reads the shipped configs, or the model that is built from them, and fails if its key changes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from resdet.config import BoxHeadConfig, Config, load_config
from resdet.data.sets.splits import KNOWN_SETS
from resdet.data.sets.voc import KNOWN_SETS as VOC_SETS
from resdet.engine.train.optim import learning_rate
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.box_head import C5BoxHead, TwoLayerBoxHead
from resdet.models.second_stage.roi_heads import RoIHeads
from resdet.ops.roi_kernels import roi_pool

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs/he2015"
NETS = ("vgg16", "resnet50", "resnet101")
COCO = [f"{net}_coco" for net in NETS]
VOC = [f"{net}_voc0712" for net in NETS]
BOTH = COCO + VOC


def config(*names: str) -> Config:
    return load_config(*(FOLDER / f"{name}.yaml" for name in names))


def box_head(name: str) -> BoxHeadConfig:
    found = config(name).model.box_head
    assert found is not None
    return found


@cache
def model(name: str) -> RCNN:
    """Without memory and without weights."""
    chosen = config(name).model
    chosen.backbone.weights = None
    with torch.device("meta"):
        return build_model(chosen, 20)


def heads(name: str) -> RoIHeads:
    found = model(name).roi_heads
    assert isinstance(found, RoIHeads)
    return found


def trained(part: nn.Module) -> set[str]:
    return {name for name, parameter in part.named_parameters() if parameter.requires_grad}


# The layers.


@pytest.mark.parametrize("name", BOTH)
def test_anchors_and_regions_share_maps_of_stride_16(name: str) -> None:
    assert model(name).neck.strides == (16,)
    assert heads(name).pooler.strides == (16,)


@pytest.mark.parametrize("name", ["resnet50_coco", "resnet101_coco", "resnet50_voc0712", "resnet101_voc0712"])
def test_conv5_of_a_resnet_runs_on_each_region(name: str) -> None:
    head = heads(name).box_head
    assert isinstance(head, C5BoxHead)
    assert next(head.layer4.parameters()).requires_grad
    maps = head.maps(torch.zeros(2, 1024, 14, 14, device="meta"))
    assert maps.shape == (2, 2048, 7, 7)
    assert head(maps).shape == (2, 2048), "the mean over the region"
    assert not any(part.startswith("layer4") for part in model(name).backbone.state_dict())


@pytest.mark.parametrize(("name", "blocks"), [("resnet50_coco", 6), ("resnet101_coco", 23)])
def test_the_depth_is_in_conv4(name: str, blocks: int) -> None:
    assert len(model(name).backbone.get_submodule("layer3")) == blocks  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["vgg16_coco", "vgg16_voc0712"])
def test_vgg_has_13_convolutions_then_fc6_and_fc7_with_dropout(name: str) -> None:
    convolutions = [m for m in model(name).backbone.modules() if isinstance(m, nn.Conv2d)]
    head = heads(name).box_head
    assert isinstance(head, TwoLayerBoxHead)
    assert len(convolutions) == 13
    assert (head.fc6.in_features, head.fc6.out_features, head.fc7.out_features) == (512 * 7 * 7, 4096, 4096)
    assert head.dropout == 0.5


@pytest.mark.parametrize("name", ["vgg16_coco", "vgg16_voc0712"])
def test_vgg_is_tuned_from_conv3_1_up(name: str) -> None:
    backbone = model(name).backbone
    convolutions = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert [m.weight.requires_grad for m in convolutions] == [False] * 4 + [True] * 9


@pytest.mark.parametrize("name", BOTH)
def test_batch_norms_are_frozen_to_a_scale_and_an_offset(name: str) -> None:
    whole = model(name)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in whole.modules())
    assert not any("bn" in parameter or "downsample.1" in parameter for parameter in trained(whole))
    assert config(name).model.backbone.norm == "frozen_bn"


@pytest.mark.parametrize("name", BOTH)
def test_regions_are_pooled_by_maximum(name: str) -> None:
    pooling = heads(name).pooler.pooling
    assert getattr(pooling, "func", None) is roi_pool
    assert getattr(pooling, "keywords", {})["resolution"] == (7 if name.startswith("vgg") else 14)


# The first stage.


@pytest.mark.parametrize(
    ("name", "sizes"), [*((n, [64, 128, 256, 512]) for n in COCO), *((n, [128, 256, 512]) for n in VOC)]
)
def test_anchors_have_4_scales_on_coco_3_on_voc_and_3_ratios(name: str, sizes: list[int]) -> None:
    built = build_anchors(name)
    areas = (built[:, 2:] - built[:, :2]).prod(1)
    assert areas.sqrt().round().unique().tolist() == sizes
    ratios = ((built[:, 3] - built[:, 1]) / (built[:, 2] - built[:, 0])).round(decimals=3).unique()
    assert ratios.tolist() == [0.5, 1.0, 2.0]
    assert model(name).rpn.anchor_generator.per_cell == 3 * len(sizes)


def build_anchors(name: str) -> torch.Tensor:
    from resdet.ops.anchors import cell_anchors

    anchors = config(name).model.anchors
    return cell_anchors(anchors.sizes, anchors.ratios, rounded=bool(anchors.rounded))


@pytest.mark.parametrize("name", BOTH)
def test_an_image_teaches_the_rpn_256_anchors_one_to_one(name: str) -> None:
    sampler, matcher = model(name).rpn.sampler, model(name).rpn.matcher
    assert (sampler.size, sampler.positive_fraction) == (256, 0.5)
    assert (matcher.foreground_iou, matcher.background_iou, matcher.low_quality) == (0.7, 0.3, True)


@pytest.mark.parametrize("name", BOTH)
def test_anchors_that_cross_the_boundary_are_left_out_of_training(name: str) -> None:
    assert model(name).rpn.cross_boundary == 0


@pytest.mark.parametrize("name", BOTH)
def test_proposals_overlap_less_than_070_and_300_are_tested(name: str) -> None:
    assert model(name).rpn.nms_iou == 0.7
    assert model(name).test_limits.proposals == 300
    assert model(name).train_limits.proposals == 2000


# The second stage.


@pytest.mark.parametrize("name", BOTH)
def test_an_image_teaches_64_regions_a_quarter_of_them_positive(name: str) -> None:
    sampler = heads(name).sampler
    assert (sampler.size, sampler.positive_fraction) == (64, 0.25)


@pytest.mark.parametrize(("name", "low"), [*((n, 0.0) for n in COCO), *((n, 0.1) for n in VOC)])
def test_negatives_reach_down_to_0_on_coco_and_to_01_on_voc(name: str, low: float) -> None:
    matcher = heads(name).stages[0].matcher
    assert (matcher.background_iou_low, matcher.background_iou, matcher.foreground_iou) == (low, 0.5, 0.5)


@pytest.mark.parametrize("name", BOTH)
def test_box_losses_are_smooth_l1_and_detections_overlap_less_than_030(name: str) -> None:
    box, rpn = box_head(name), config(name).model.rpn
    assert [(part.box_loss, part.smooth_l1_beta) for part in (box, rpn)] == [("smooth_l1", 1.0)] * 2
    assert heads(name).limits.nms_iou == 0.3


def test_new_layers_are_drawn_from_a_normal_distribution() -> None:
    chosen = config("vgg16_coco").model
    chosen.backbone.weights, chosen.backbone.name = None, "vgg11"  # the new layers are the same, the rest is smaller
    chosen.box_head = box_head("vgg16_coco")
    chosen.box_head.fc_dim = 1024
    _ = torch.manual_seed(0)
    built = build_model(chosen, 80)
    deviations = {
        "rpn.head.conv.0.0.weight": 0.01,
        "rpn.head.cls_logits.weight": 0.01,
        "rpn.head.bbox_pred.weight": 0.01,
        "roi_heads.box_predictor.cls_score.weight": 0.01,
        "roi_heads.box_predictor.bbox_pred.weight": 0.001,  # Girshick 2015, section 2.3
    }
    for name, deviation in deviations.items():
        assert built.get_parameter(name).std().item() == pytest.approx(deviation, rel=0.05), name
        assert not built.get_parameter(name.replace("weight", "bias")).any(), name


# Images and schedule.


@pytest.mark.parametrize("name", BOTH)
def test_images_have_a_short_side_of_600_at_a_single_scale(name: str) -> None:
    augment = config(name).data.augment
    assert (augment.short_side, augment.test_short_side, augment.max_side) == ([600], 600, 1000)
    assert (augment.flip, augment.photometric) == (0.5, 0.0)


@pytest.mark.parametrize("name", BOTH)
def test_weights_come_from_imagenet(name: str) -> None:
    assert config(name).model.backbone.weights == "IMAGENET1K_V1"


@pytest.mark.parametrize(
    ("names", "steps", "batch", "rates"),
    [
        *(((n,), (240_000, 320_000), 8, (0.001, 0.0001)) for n in COCO),
        *(((n, "lr_0.003"), (240_000, 320_000), 8, (0.003, 0.0003)) for n in COCO),
        *(((n,), (60_000, 80_000), 2, (0.001, 0.0001)) for n in VOC),
    ],
)
def test_the_schedule_is_two_constant_rates(
    names: tuple[str, ...], steps: tuple[int, int], batch: int, rates: tuple[float, float]
) -> None:
    chosen = config(*names)
    assert (chosen.train.steps, chosen.train.batch_size) == (steps[1], batch)
    for step, rate in ((0, 0), (steps[0] - 1, 0), (steps[0], 1), (steps[1] - 1, 1)):
        assert learning_rate(step, chosen.optim, chosen.train) == pytest.approx(rates[rate])


@pytest.mark.parametrize("name", BOTH)
def test_momentum_and_weight_decay(name: str) -> None:
    chosen = config(name)
    assert (chosen.optim.name, chosen.optim.momentum, chosen.optim.weight_decay) == ("sgd", 0.9, 0.0005)
    assert chosen.train.grad_clip is None


def test_the_sets_are_train2014_to_val2014_and_07_12_to_07_test() -> None:
    assert {(config(n).data.train.name, config(n).data.val.name) for n in COCO} == {("coco2014", "coco2014")}
    assert KNOWN_SETS["coco2014"]["train"][0].endswith("instances_train2014.json")
    assert KNOWN_SETS["coco2014"]["val"][0].endswith("instances_val2014.json")
    assert {(config(n).data.train.name, config(n).data.val.name) for n in VOC} == {("voc0712", "voc0712")}
    assert VOC_SETS["voc0712"] == {"train": (("2007", "trainval"), ("2012", "trainval")), "val": (("2007", "test"),)}
    plus = config("vgg16_voc0712", "voc0712plus")
    assert (plus.data.train.name, plus.eval.metric, config("vgg16_voc0712").eval.metric) == (
        "voc0712plus", "voc12", "voc07",
    )  # fmt: skip
    assert VOC_SETS["voc0712plus"]["train"] == (("2007", "trainval"), ("2007", "test"), ("2012", "trainval"))


def test_the_three_nets_of_a_set_differ_in_nothing_but_the_net() -> None:
    for names in (COCO, VOC):
        configs = [config(name) for name in names]
        for each in configs:
            assert each.model.box_head is not None
            each.model.backbone.name, each.model.box_head.resolution, each.model.box_head.fc_dim = "", 0, 0
        assert configs[0] == configs[1] == configs[2]


def test_the_first_stage_alone_is_one_file_more() -> None:
    assert config("vgg16_coco", "rpn").model.box_head is None


# Appendix B.


def test_the_rows_of_table_9_are_parts_of_test_and_one_of_the_head() -> None:
    context, scales = config("resnet101_coco", "global_context"), config("resnet101_coco", "multi_scale_testing")
    for chosen in (context, scales):
        assert chosen.model.box_head is not None
        assert chosen.model.box_head.global_context
        assert chosen.test.refinement is not None
        assert chosen.test.refinement.nms_iou == 0.3
        assert chosen.test.voting is not None
        assert chosen.test.voting.iou == 0.5
    assert (context.test.scales, scales.test.scales) == (None, [200, 400, 600, 800, 1000])


def test_every_config_says_what_the_paper_reports_and_that_it_is_not_measured() -> None:
    for path in FOLDER.glob("*.yaml"):
        header = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
        assert "ot yet measured here" in header, path.name
        assert "python tools/train.py configs/he2015/" in header, path.name
        assert len(path.read_text().splitlines()) <= 25, path.name
