"""Reads pretrained weights safely, with a contract of their conventions, and loads them completely or not at all."""

from __future__ import annotations

from resdet.weights.backbone import load_backbone_weights
from resdet.weights.contract import WeightContract, conflicts, to_rgb
from resdet.weights.coverage import CoverageReport, load_checked
from resdet.weights.detector import load_model_weights
from resdet.weights.published import PublishedWeights, open_weights
from resdet.weights.read import WeightsFile, read_safetensors, read_weights
from resdet.weights.write import save_weights

__all__ = [
    "CoverageReport",
    "PublishedWeights",
    "WeightContract",
    "WeightsFile",
    "conflicts",
    "load_backbone_weights",
    "load_checked",
    "load_model_weights",
    "open_weights",
    "read_safetensors",
    "read_weights",
    "save_weights",
    "to_rgb",
]
