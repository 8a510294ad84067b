"""Where a net's cells lie: by a pencil, by the gradient of a cell, and nets whose anchors would miss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdet.errors import UserError
from resdet.models.backbones import BACKBONES, Backbone, build_backbone
from resdet.models.backbones.places import Rows, misplaced, places


class Net(Backbone):
    """One map, of the layers given."""

    def __init__(self, stride: int, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.strides, self.channels = (stride,), (1,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.layers(images)]

    def stages(self) -> list[tuple[str, nn.Module]]:
        return [("stem", self.layers)]


class Same(nn.Module):
    """TensorFlow's padding of a 3x3 of stride 2: nothing before, one behind."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 1, 0, 1))


class Merged(nn.Module):
    """Blocks of 2 x 2 cells become channels of one, as patches are merged in Swin."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


PENCIL = {
    "a padded 3x3 is centred on every second pixel": (2, [nn.Conv2d(3, 1, 3, 2, 1)], 0.5),
    "a patch of 4 is centred in itself": (4, [nn.Conv2d(3, 1, 4, 4)], 2.0),
    "a 3x3 without padding begins one pixel in": (2, [nn.Conv2d(3, 1, 3, 2)], 1.5),
    "two of them begin 1 and 2 pixels in": (4, [nn.Conv2d(3, 1, 3, 2), nn.Conv2d(1, 1, 3, 2)], 3.5),
    "padded behind only": (2, [Same(), nn.Conv2d(3, 1, 3, 2)], 1.5),
    "a dilated 3x3 reaches 2 further": (1, [nn.Conv2d(3, 1, 3, dilation=2)], 2.5),
    "pooled by halves": (4, [nn.Conv2d(3, 1, 3, 2, 1), nn.MaxPool2d(2)], 1.5),
    "averaged over 3 cells": (4, [nn.Conv2d(3, 1, 3, 2, 1), nn.AvgPool2d(3, 2, 1)], 0.5),
    "merged blocks of pixels": (2, [Merged()], 1.0),
    "twice as fine again": (2, [nn.Conv2d(3, 1, 4, 4), nn.Upsample(scale_factor=2)], 1.0),
    "transposed": (2, [nn.Conv2d(3, 1, 4, 4), nn.ConvTranspose2d(1, 1, 2, 2)], 1.0),
}


@pytest.mark.parametrize("case", PENCIL)
def test_the_first_cell_lies_where_a_pencil_puts_it(case: str) -> None:
    stride, layers, first = PENCIL[case]
    ((size, rows),) = places(Net(stride, *layers))
    assert rows == Rows(size[0], float(stride), first, first)


def test_a_cell_lies_where_the_pixels_that_it_sees_have_their_middle() -> None:
    """With weights of one, the gradient of a cell is how much it sees of each pixel."""
    net = Net(8, nn.Conv2d(3, 2, 5, 2, 1), nn.MaxPool2d(2), nn.Conv2d(2, 1, 3, 2, 0, dilation=2))
    for parameter in net.parameters():
        _ = nn.init.ones_(parameter)
    images = torch.rand(1, 3, 96, 128, requires_grad=True)
    net(images)[0][0, 0, 4, 4].backward()
    assert images.grad is not None
    seen = images.grad.sum((0, 1, 3)).bool().nonzero().flatten().float()
    ((_, rows),) = places(net)
    seen_middle = (seen.min() + seen.max() + 1) / 2
    assert abs(float(seen_middle) - (rows.low + 4 * rows.stride)) <= 1, "max pooling sees one of its two cells"


def test_an_image_of_another_size_does_not_move_the_first_cell() -> None:
    with torch.device("meta"):
        net = build_backbone("resnet18")
    small, large = (places(net, size) for size in ((64, 96), (416, 608)))
    assert [(rows.stride, rows.low) for _, rows in small] == [(rows.stride, rows.low) for _, rows in large]


def test_the_net_stays_as_it_was() -> None:
    net = Net(2, nn.Conv2d(3, 1, 3, 2, 1), nn.BatchNorm2d(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    _ = places(net)
    assert net.training
    torch.testing.assert_close(net.state_dict(), before)


OURS = [
    "resnet18",
    "resnet50_caffe",
    "preact_resnet18",
    "plain18",
    "vgg11",
    "resnet50_deformable",
    "nano",
    "resnet20_cifar",
]


@pytest.mark.parametrize(
    "name", [*OURS, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(BACKBONES.keys() - set(OURS)))]
)
def test_resdets_own_nets_have_their_cells_where_their_anchors_are(name: str) -> None:
    with torch.device("meta"):
        assert misplaced(build_backbone(name)) is None


def test_a_dilated_last_stage_has_them_there_too() -> None:
    with torch.device("meta"):
        assert misplaced(build_backbone("resnet50", dilated_c5=True)) is None


MISPLACED = {
    "not 208 x 304, because not all": Net(2, nn.Conv2d(3, 1, 3, 2)),
    "sees the image around pixel 8.5": Net(
        4, nn.Conv2d(3, 1, 9, 4, 4), nn.ZeroPad2d((0, 2, 0, 2)), nn.Conv2d(1, 1, 5, 1, 0), nn.ZeroPad2d((0, 2, 0, 2))
    ),
    "does not take images of": Net(2, nn.Conv2d(4, 1, 3, 2, 1)),
}


@pytest.mark.parametrize("reason", MISPLACED)
def test_a_net_whose_anchors_would_miss_is_given_its_reason(reason: str) -> None:
    assert reason in (misplaced(MISPLACED[reason]) or "")


def test_a_net_of_a_users_own_is_looked_at_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "valid", lambda *, norm: Net(2, nn.Conv2d(3, 1, 3, 2)))
    with pytest.raises(UserError, match=r"^backbone 'valid': its map of stride 2 has 207 x 303 cells") as caught:
        _ = build_backbone("valid")
    assert "\n" not in str(caught.value)


TIMM = {
    "inception_v3": "100 x 148 cells",
    "legacy_xception": "103 x 151 cells",
    "halonet26t": "does not take images of 416 x 608 pixels",
}


@pytest.mark.parametrize("name", TIMM)
def test_a_timm_net_that_does_not_fit_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match=TIMM[name]) as caught, torch.device("meta"):
        _ = build_backbone(f"timm/{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hieradet_small", "tf_efficientnet_lite0", "hrnet_w18_small"])
def test_every_parameter_of_a_timm_net_is_in_one_stage(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(f"timm/{name}", norm="bn")
    grouped = [parameter for _, stage in backbone.stages() for parameter in stage.parameters()]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(backbone.parameters())
