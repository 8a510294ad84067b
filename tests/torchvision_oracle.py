"""Torchvision's detectors with random weights that leave something to compare."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection import FasterRCNN

SPREAD = {  # deviation of the weights of each predictor, so that scores, boxes and masks differ
    "rpn.head.cls_logits": 0.02,
    "rpn.head.bbox_pred": 0.02,
    "roi_heads.box_predictor.cls_score": 0.3,
    "roi_heads.box_predictor.bbox_pred": 0.1,
    "roi_heads.mask_predictor.mask_fcn_logits": 0.3,
}


def random_detector(name: str, **numbers: int) -> FasterRCNN:
    """Builds one by its name and numbers, with BN statistics that fit its features."""
    _ = torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None, **numbers)
    with torch.no_grad():
        tame(model)
        spread(model)
    return model.eval()


def tame(model: FasterRCNN) -> None:
    """Small features: rounding errors stay far below what is compared."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    for name, parameter in model.backbone.named_parameters():
        if "bn3.weight" in name or "inner_blocks" in name:
            _ = parameter.mul_(0.2)
    _ = model.train().get_submodule("backbone")(torch.randn(4, 3, 192, 192))


def spread(model: FasterRCNN) -> None:
    parameters = dict(model.named_parameters())
    for layer, deviation in SPREAD.items():
        if f"{layer}.weight" in parameters:
            _ = parameters[f"{layer}.weight"].normal_(std=deviation)
    for module in model.get_submodule("roi_heads").modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            _ = module.running_mean.normal_(std=0.1)


def numbered_rows(rows: int, columns: int = 2) -> torch.Tensor:
    return torch.arange(float(rows))[:, None].expand(rows, columns).contiguous()


def small_torchvision(classes: int) -> dict[str, torch.Tensor]:
    """The last layers of a torchvision Mask R-CNN: row i has the number i."""
    predictor = "roi_heads.box_predictor"
    return {
        "backbone.body.conv1.weight": torch.ones(4, 3, 7, 7),
        f"{predictor}.cls_score.weight": numbered_rows(classes + 1),
        f"{predictor}.cls_score.bias": torch.arange(classes + 1.0),
        f"{predictor}.bbox_pred.weight": numbered_rows(4 * (classes + 1)),
        f"{predictor}.bbox_pred.bias": torch.arange(4 * (classes + 1.0)),
        "roi_heads.mask_predictor.mask_fcn_logits.weight": numbered_rows(classes + 1)[:, :, None, None],
        "roi_heads.mask_predictor.mask_fcn_logits.bias": torch.arange(classes + 1.0),
        "roi_heads.mask_predictor.conv5_mask.weight": torch.ones(1),
        "roi_heads.mask_head.2.0.weight": torch.ones(1),
        "roi_heads.mask_head.2.1.running_mean": torch.ones(1),
    }
