from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from resdet.errors import UserError
from resdet.models.backbones import build_backbone
from resdet.models.backbones.resnet import (
    BasicBlock,
    Bottleneck,
    PlainBlock,
    ResidualBlock,
    ResNet,
    Shortcut,
    ZeroPadding,
    stochastic_depth,
)

SMALL = partial(ResNet, BasicBlock, (1, 2, 1, 2), stem_channels=8, c2_channels=8, norm="bn")


def test_a_basic_block_is_relu_of_f_plus_x():
    block, x = BasicBlock(4, 4, stride=1, dilation=1, norm="bn", drop=0.0), torch.randn(2, 4, 5, 6)
    f = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2)
    torch.testing.assert_close(block(x), torch.relu(f(x) + x))


def test_a_bottleneck_that_changes_the_shape_is_relu_of_f_plus_w_x():
    block, x = Bottleneck(4, 8, stride=2, dilation=1, norm="bn", drop=0.0).eval(), torch.randn(2, 4, 5, 6)
    assert block.downsample is not None
    f = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2, nn.ReLU(), block.conv3, block.bn3)
    torch.testing.assert_close(block(x), torch.relu(f(x) + block.downsample(x)))


def test_a_plain_block_is_relu_of_f():
    block, x = PlainBlock(4, 4, stride=1, dilation=1, norm="bn", drop=0.0), torch.randn(2, 4, 5, 6)
    f = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2)
    torch.testing.assert_close(block(x), torch.relu(f(x)))


def test_a_plain_net_has_the_layers_of_the_residual_net_without_projections():
    residual = SMALL().state_dict()
    plain = ResNet(PlainBlock, (1, 2, 1, 2), stem_channels=8, c2_channels=8, norm="bn").state_dict()
    expected = {name: tensor.shape for name, tensor in residual.items() if "downsample" not in name}
    assert {name: tensor.shape for name, tensor in plain.items()} == expected


def test_shortcut_a_takes_every_second_pixel_and_adds_channels_of_zeros():
    x = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]])
    expected = torch.tensor([[[[1.0, 3.0], [7.0, 9.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    torch.testing.assert_close(ZeroPadding(1, stride=2)(x), expected)


@pytest.mark.parametrize(("option", "projections"), [("A", 0), ("B", 3), ("C", 6)])
def test_shortcut_options_project_never_where_the_shape_changes_or_always(option: Shortcut, projections: int):
    net = ResNet(partial(BasicBlock, option=option), (1, 2, 1, 2), stem_channels=8, c2_channels=8)
    assert sum(name.endswith("downsample.0.weight") for name in net.state_dict()) == projections


def test_narrow_nets_keep_the_proportions():
    net = ResNet(Bottleneck, (3, 4, 6, 3), stem_channels=8, c2_channels=16)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    assert net.channels == (16, 32, 64, 128)
    assert shapes["conv1.weight"] == (8, 3, 7, 7)
    assert shapes["layer1.0.conv1.weight"] == (4, 8, 1, 1)
    assert shapes["layer4.2.conv2.weight"] == (32, 32, 3, 3)


def test_c5_taken_out_and_run_on_c4_gives_the_c5_of_the_whole_net():
    net, images = SMALL().eval(), torch.randn(1, 3, 61, 75)
    *rest, c5 = net(images)
    head = net.pop_c5()
    assert net.channels == (8, 16, 32)
    assert net.strides == (4, 8, 16)
    torch.testing.assert_close(net(images), rest)
    torch.testing.assert_close(head(rest[-1]), c5)


def test_c5_at_stride_1_keeps_the_size_of_its_rois():
    rois = torch.randn(5, 32, 7, 7)
    assert SMALL().pop_c5(stride=1)(rois).shape == (5, 64, 7, 7)
    assert SMALL().pop_c5(stride=2)(rois).shape == (5, 64, 4, 4)


def test_zero_init_starts_every_block_as_its_shortcut():
    net = SMALL(zero_init=True).eval()
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(net.get_submodule("layer1")(x), torch.relu(x))


@pytest.mark.parametrize("norm", ["frozen_bn", "none"])
def test_zero_init_is_refused_where_the_zero_would_stay(norm: str):
    with pytest.raises(UserError, match="zero_init"):
        _ = SMALL(zero_init=True, norm=norm)


def test_plain_nets_refuse_what_needs_a_shortcut():
    with pytest.raises(UserError, match="stochastic_depth"):
        _ = ResNet(PlainBlock, (1, 1, 1, 1), c2_channels=8, stochastic_depth=0.1)
    with pytest.raises(UserError, match="zero_init"):
        _ = ResNet(PlainBlock, (1, 1, 1, 1), c2_channels=8, norm="bn", zero_init=True)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    _ = torch.manual_seed(0)
    y = stochastic_depth(torch.ones(4000, 1, 2, 2), drop=0.2)
    assert set(y.unique().tolist()) == {0.0, 1.25}
    assert (y.amin((1, 2, 3)) == y.amax((1, 2, 3))).all()
    torch.testing.assert_close(y.mean(), torch.tensor(1.0), atol=0.03, rtol=0.0)  # 4 standard errors are 0.032


def test_stochastic_depth_of_one_drops_every_image_and_learns_nothing_there():
    x = torch.full((3, 1, 2, 2), 2.0, requires_grad=True)
    y = stochastic_depth(x, drop=1.0)
    assert not y.any()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert not gradient.any()


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_stochastic_depth_that_is_no_fraction_is_refused(fraction: float):
    with pytest.raises(UserError, match="must lie between 0 and 1") as refusal:
        _ = build_backbone("resnet18", stochastic_depth=fraction)
    assert "\n" not in str(refusal.value)


def test_stochastic_depth_grows_linearly_with_depth_and_rests_in_eval_mode():
    net = SMALL(stochastic_depth=0.3)
    drops = [block.drop for block in net.modules() if isinstance(block, ResidualBlock)]
    assert drops == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    images = torch.randn(2, 3, 32, 32)
    reference = SMALL()
    _ = reference.load_state_dict(net.state_dict())
    torch.testing.assert_close(net.eval()(images), reference.eval()(images))


def test_a_deformable_convolution_samples_where_its_offset_says():
    net = SMALL(deformable=("layer2",), norm="frozen_bn")
    images = torch.randn(1, 3, 64, 64)
    before: list[Tensor] = net(images)
    for name, parameter in net.named_parameters():
        if name.endswith("predictor.bias"):
            assert name.startswith("layer2.")
            _ = parameter.data.fill_(0.5)
    after: list[Tensor] = net(images)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


def test_without_norms_the_convolutions_have_biases():
    net = SMALL(norm="none")
    assert net.conv1.bias is not None
    assert all("bn" not in name for name in net.state_dict())
