"""Global context: every region is told of the whole image, and of no other."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from resdet.config import ModelConfig, load_config
from resdet.models.build.detector import build_model
from resdet.models.rcnn import RCNN
from resdet.models.second_stage.global_context import join_image_vector, with_image_box
from resdet.structures import Batch, Targets

SIZES = torch.tensor([[64, 96], [50, 60]])
LAYOUTS = {
    "fpn": ["model.backbone.name=nano", "model.neck.channels=16", "model.box_head.fc_dim=32"],
    "c4": ["model.backbone.name=resnet18", "model.neck.name=c4", "model.box_head.resolution=7"],
    "cascade": ["model.backbone.name=nano", "model.neck.channels=16", "model.box_head.fc_dim=32", "model.cascade={}"],
    "vgg": ["model.backbone.name=vgg11", "model.neck.name=c4", "model.box_head.fc_dim=32"],
}


def config_of(layout: str, *, context: bool = True) -> ModelConfig:
    small = ["rpn.pre_nms_train=50", "rpn.proposals_train=20", "rpn.proposals_test=20", "rpn.pre_nms_test=50"]
    small += ["box_head.batch_size_per_image=8", "backbone.frozen_stages=0", "backbone.norm=gn"]
    keys = [f"model.{key}" for key in small] + LAYOUTS[layout]
    return load_config(overrides=[*keys, f"model.box_head.global_context={str(context).lower()}"]).model


def model_of(layout: str) -> RCNN:
    _ = torch.manual_seed(0)
    return build_model(config_of(layout), 3)


def batch() -> Batch:
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[4.0, 4, 40, 50]], [[10.0, 20, 50, 45]]])
    valid = torch.ones(2, 1, dtype=torch.bool)
    targets = Targets(boxes, torch.tensor([[0], [2]]), ~valid, valid, torch.arange(2))
    return Batch(images, SIZES, targets)


def test_the_image_box_comes_first_and_leaves_padding_out() -> None:
    boxes = torch.ones(2, 3, 4)
    with_image = with_image_box(boxes, SIZES)
    assert with_image[:, 0].tolist() == [[0, 0, 96, 64], [0, 0, 60, 50]]
    assert_close(with_image[:, 1:], boxes)


def test_each_region_is_joined_with_its_own_image() -> None:
    vectors = torch.arange(12.0).view(2, 3, 2)  # 2 images, the whole and 2 regions, 2 numbers
    joined = join_image_vector(vectors)
    assert joined.tolist() == [[[2, 3, 0, 1], [4, 5, 0, 1]], [[8, 9, 6, 7], [10, 11, 6, 7]]]


@pytest.mark.parametrize("layout", ["fpn", "c4", "cascade", pytest.param("vgg", marks=pytest.mark.slow)])
def test_the_predictor_is_twice_as_wide_and_everything_learns_end_to_end(layout: str) -> None:
    model = model_of(layout)
    plain = build_model(config_of(layout, context=False), 3)
    name = f"roi_heads.box_predictor.{'2.' if layout == 'cascade' else ''}cls_score.weight"
    widths = [net.get_parameter(name).shape[1] for net in (model, plain)]
    assert widths[0] == 2 * widths[1]
    _ = torch.stack(list(model.train()(batch()).values())).sum().backward()
    gradient = model.get_parameter(name).grad
    assert gradient is not None
    assert gradient[:, widths[1] :].any(), "the part that sees the image"


def test_a_region_sees_what_lies_outside_it() -> None:
    model, images = model_of("fpn").eval(), batch().images.clone()
    region = torch.tensor([[[0.0, 0, 16, 16]]])

    def probabilities(images: torch.Tensor, net: RCNN) -> torch.Tensor:
        maps = [torch.nn.functional.avg_pool2d(images.float() / 255, stride) for stride in (4, 8, 16, 32)]
        assert net.roi_heads is not None
        return net.roi_heads([m.repeat(1, 6, 1, 1)[:, :16] for m in maps], region, SIZES[:1])[0]

    here, changed = images[:1], images[:1].clone()
    changed[:, :, 40:, 40:] = 0
    assert not torch.allclose(probabilities(here, model), probabilities(changed, model), rtol=0, atol=1e-6)
    plain = build_model(config_of("fpn", context=False), 3).eval()
    assert_close(probabilities(here, plain), probabilities(changed, plain), rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["fpn", "cascade", pytest.param("c4", marks=pytest.mark.slow)])
def test_no_image_sees_another(layout: str) -> None:
    model = model_of(layout).eval()
    whole = Batch(batch().images, SIZES)
    together = model.predict(whole)
    for image in range(2):
        alone = model.predict(Batch(whole.images[image : image + 1], SIZES[image : image + 1]))
        assert_close(alone.scores, together.scores[image : image + 1], atol=1e-4, rtol=1e-4)
