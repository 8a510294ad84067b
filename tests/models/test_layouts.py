"""Every backbone in every layout: what can be trained is trained, what is frozen stays, what cannot be is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from resdet.config import ModelConfig, load_config
from resdet.errors import UserError
from resdet.models.backbones import BACKBONES
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.box_head import C5BoxHead, TwoLayerBoxHead
from resdet.structures import Batch, Targets

SIZE = (64, 96)
CLASSES = 3
SAMPLE = [("resnet18", "pafpn"), ("resnet18", "c4"), ("resnet50", "dc5"), ("vgg11", "c4"), ("vgg11", "fpn")]
# What has no C2..C5 at strides 4, 8, 16, 32, or no last stage to take out or to dilate.
NOT_C4 = {"nano", *(name for name in BACKBONES if name.endswith("_cifar") or name.startswith("preact_"))}
NOT_DC5 = {"nano", *(name for name in BACKBONES if name.startswith(("preact_", "vgg")))}
TIMM = ["timm/resnet18", "timm/convnext_atto", "timm/mobilenetv3_small_050"]


def grid() -> list[tuple[str, str]]:
    """All that a config can name, without the giants whose parts are the same as their smaller relatives'."""
    names = [name for name in BACKBONES if not any(depth in name for depth in ("1202", "200", "152", "110"))]
    pairs = [(name, layout) for name in names + TIMM for layout in ("fpn", "pafpn", "c4", "dc5")]
    refused = {"c4": NOT_C4 | set(TIMM), "dc5": NOT_DC5 | set(TIMM)}
    return [
        (name, layout) for name, layout in pairs if name not in refused.get(layout, ()) and (name, layout) not in SAMPLE
    ]


def config_of(name: str, layout: str, *overrides: str) -> ModelConfig:
    config = load_config(overrides=[
        f"model.backbone.name={name}", f"model.neck.name={layout}", "model.backbone.norm=frozen_bn",
        "model.neck.channels=16", "model.box_head.fc_dim=32", "model.anchors.sizes=[8, 16, 32, 64, 64]",
        "model.rpn.pre_nms_train=100", "model.rpn.proposals_train=20", "model.rpn.batch_size_per_image=64",
        "model.box_head.batch_size_per_image=8", *overrides,
    ])  # fmt: skip
    if name.endswith("_cifar") and layout in ("fpn", "pafpn"):
        config.model.anchors.sizes = [8.0, 16.0, 32.0, 64.0]
    return config.model


def batch() -> Batch:
    boxes = torch.tensor([[[4.0, 4, 40, 50], [30, 10, 90, 60]], [[10.0, 20, 60, 55], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, True], [True, False]])
    targets = Targets(boxes, torch.tensor([[0, 2], [1, 0]]), ~valid & False, valid, torch.arange(2))
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.tensor([[64, 96], [60, 70]]), targets)


def tensors(model: RCNN) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "layout"), [*SAMPLE, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in grid())]
)
def test_a_step_trains_what_can_be_trained_and_nothing_else(name: str, layout: str) -> None:
    _ = torch.manual_seed(0)
    model = build_model(config_of(name, layout), CLASSES)
    before, trainable = tensors(model), {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable < set(before), "the first stages are frozen"
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    _ = torch.stack(list(model(batch()).values())).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
        else:
            assert parameter.grad is None, parameter_name
    learning = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    _ = optimizer.step()
    after = tensors(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= learning
    assert {name.split(".")[0] for name in moved} >= {"backbone", "rpn", "roi_heads"}


def test_c4_splits_the_backbone_in_two() -> None:
    with torch.device("meta"):
        model, whole = build_model(config_of("resnet50", "c4"), CLASSES), build_model(config_of("resnet50", "fpn"), 3)
    box_head = model.get_submodule("roi_heads.box_head")
    assert isinstance(box_head, C5BoxHead)
    trunk, head = set(model.backbone.state_dict()), set(box_head.state_dict())
    assert trunk | head == set(whole.backbone.state_dict())
    assert {name.split(".")[0] for name in head} == {"layer4"}
    assert (model.neck.channels, model.neck.strides) == (1024, (16,))


@pytest.mark.parametrize(("resolution", "into_mean"), [(14, 7), (7, 7)])
def test_conv5_of_c4_works_on_seven_by_seven(resolution: int, into_mean: int) -> None:
    """With its stride on 14x14 bins (He et al. 2015), without it on 7x7 (He et al. 2017)."""
    model = build_model(config_of("resnet18", "c4", f"model.box_head.resolution={resolution}"), CLASSES)
    box_head = model.get_submodule("roi_heads.box_head")
    assert isinstance(box_head, C5BoxHead)
    regions = torch.zeros(2, 256, resolution, resolution)
    assert box_head.layer4(regions).shape == (2, 512, into_mean, into_mean)


def test_c4_of_a_vgg_has_fc6_fc7_and_dropout() -> None:
    with torch.device("meta"):
        model = build_model(config_of("vgg16", "c4", "model.box_head.fc_dim=4096"), CLASSES)
    head = model.get_submodule("roi_heads.box_head")
    assert isinstance(head, TwoLayerBoxHead)
    assert (head.fc6.weight.shape, head.fc7.weight.shape, head.dropout) == ((4096, 512 * 49), (4096, 4096), 0.5)
    assert model.neck.strides == (16,)


def test_dropout_leaves_prediction_alone() -> None:
    model = build_model(config_of("vgg11", "c4"), CLASSES)
    regions = torch.randn(4, 512, 7, 7)
    head = model.train().get_submodule("roi_heads.box_head")
    assert not torch.equal(head(regions), head(regions))
    head = model.eval().get_submodule("roi_heads.box_head")
    assert_close(head(regions), head(regions))


def test_dc5_keeps_the_stride_of_c4() -> None:
    with torch.device("meta"):
        model = build_model(config_of("resnet50", "dc5"), CLASSES)
    assert (model.neck.channels, model.neck.strides) == (2048, (16,))
    assert model.rpn.anchor_generator.per_cell == 15


def test_the_four_conv_head_with_rois_pooled_by_maximum() -> None:
    overrides = ["model.box_head.name=four_conv_fc", "model.box_head.norm=gn", "model.box_head.pooling=roi_pool"]
    model = build_model(config_of("nano", "fpn", *overrides, "model.backbone.frozen_stages=0"), CLASSES)
    _ = torch.stack(list(model(batch()).values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "layout", "override", "message"),
    [
        ("nano", "c4", "model.rpn.convs=1", "model.neck.name=c4 .* nano does not offer"),
        ("resnet20_cifar", "c4", "model.rpn.convs=1", "model.neck.name=c4 .* resnet20_cifar does not offer"),
        ("timm/resnet18", "c4", "model.rpn.convs=1", "model.neck.name=c4 .* timm/resnet18 does not offer"),
        ("vgg16", "dc5", "model.rpn.convs=1", "model.neck.name=dc5 .* vgg16 does not offer"),
        ("timm/resnet18", "dc5", "model.rpn.convs=1", "model.neck.name=dc5 .* timm/resnet18 does not offer"),
        ("resnet18", "c4", "model.box_head.name=four_conv_fc", "four_conv_fc does not go with model.neck.name=c4"),
        ("resnet18", "fpn", "model.anchors.sizes=[8, 16]", "one size for each of the 5 levels of fpn"),
        ("resnet18", "pafpn", "model.neck.extra_levels=conv", "one size for each of the 6 levels of pafpn"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(name: str, layout: str, override: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=message) as refusal:
        _ = build_model(config_of(name, layout, override), CLASSES)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("override", ["model.neck.extra_levels=p7", "model.box_head.pooling=align"])
def test_unknown_names_are_refused(override: str) -> None:
    with pytest.raises(UserError, match=r"is not known"):
        _ = load_config(overrides=[override])


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("model.neck.name=pafn", "did you mean 'pafpn'"),
        ("model.box_head.name=tow_fc", "did you mean 'two_fc'"),
        ("model.box_head.box_loss=l2", "known: smooth_l1, giou, ciou"),
        ("model.rpn.box_loss=iou", "did you mean 'giou'"),
    ],
)
def test_a_name_in_no_row_of_its_table_is_refused_with_a_suggestion(override: str, suggestion: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match=f"{override} is not known; {suggestion}"):
        _ = build_model(load_config(overrides=[override]).model, CLASSES)
