import torch
from torch.testing import assert_close
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from resdet.ops.anchors import cell_anchors, grid_anchors


def test_an_anchor_of_ratio_one_is_a_centred_square() -> None:
    assert_close(cell_anchors([32.0], [1.0]), torch.tensor([[-16.0, -16, 16, 16]]))


def test_a_ratio_is_height_over_width_at_equal_area() -> None:
    x1, y1, x2, y2 = cell_anchors([64.0], [2.0])[0]
    assert_close((y2 - y1) / (x2 - x1), torch.tensor(2.0))
    assert_close((y2 - y1) * (x2 - x1), torch.tensor(64.0**2))


def test_sizes_come_before_ratios() -> None:
    anchors = cell_anchors([16.0, 32.0], [0.5, 1.0])
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(1)
    assert_close(areas, torch.tensor([256.0, 256, 1024, 1024]))


def test_anchors_walk_along_rows() -> None:
    anchors = grid_anchors(cell_anchors([2.0], [1.0]), height=2, width=3, stride=10)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert_close(centres, torch.tensor([[0.0, 0], [10, 0], [20, 0], [0, 10], [10, 10], [20, 10]]))


def test_rounded_anchors_equal_torchvision() -> None:
    sizes, ratios = [32, 64], [0.5, 1.0, 2.0]
    oracle = AnchorGenerator(sizes=tuple((s,) for s in sizes), aspect_ratios=(tuple(ratios),) * 2)
    maps = [torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)]
    expected = oracle(ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)]), maps)[0]
    ours = [
        grid_anchors(cell_anchors([float(size)], ratios, rounded=True), feature.shape[2], feature.shape[3], stride)
        for size, feature, stride in zip(sizes, maps, (8, 16), strict=True)
    ]
    assert_close(torch.cat(ours), expected)
