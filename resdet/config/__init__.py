"""The configuration: a typed tree whose defaults are the papers' 1x recipe on COCO 2017, and YAML files over it.

A config file is data and never runs code. Files are merged left to right over the defaults, then `key=value`
overrides; an unknown key is an error with a suggestion. A key is declared once, in the tree (tree.py, model.py,
training.py).
"""

from __future__ import annotations

from resdet.config.check import checked
from resdet.config.load import config_from_yaml, load_config, merged, to_yaml
from resdet.config.model import (
    AnchorConfig,
    BackboneConfig,
    BoxHeadConfig,
    CascadeConfig,
    ClassifierConfig,
    MaskHeadConfig,
    ModelConfig,
    NeckConfig,
    RPNConfig,
    has_no_classes,
)
from resdet.config.training import EMAConfig, EvalConfig, OptimConfig, TrainConfig
from resdet.config.tree import (
    AugmentationConfig,
    AugmentConfig,
    Config,
    DataConfig,
    PatchesConfig,
    RefinementConfig,
    ShapesConfig,
    SplitConfig,
    TestConfig,
    VotingConfig,
)

__all__ = [
    "AnchorConfig",
    "AugmentConfig",
    "AugmentationConfig",
    "BackboneConfig",
    "BoxHeadConfig",
    "CascadeConfig",
    "ClassifierConfig",
    "Config",
    "DataConfig",
    "EMAConfig",
    "EvalConfig",
    "MaskHeadConfig",
    "ModelConfig",
    "NeckConfig",
    "OptimConfig",
    "PatchesConfig",
    "RPNConfig",
    "RefinementConfig",
    "ShapesConfig",
    "SplitConfig",
    "TestConfig",
    "TrainConfig",
    "VotingConfig",
    "checked",
    "config_from_yaml",
    "has_no_classes",
    "load_config",
    "merged",
    "to_yaml",
]
