"""The configuration: a typed tree whose defaults are the papers' 1x recipe on COCO 2017, and YAML files over it.

A config file is data and never runs code. Files are merged left to right over the defaults, then `key=value`
overrides; an unknown key is an error with a suggestion.
"""

from __future__ import annotations

from resdet.config.load import config_from_yaml, load_config, to_yaml
from resdet.config.tree import (
    AnchorConfig,
    AugmentationConfig,
    AugmentConfig,
    BackboneConfig,
    BoxHeadConfig,
    CascadeConfig,
    Config,
    DataConfig,
    EvalConfig,
    MaskHeadConfig,
    ModelConfig,
    NeckConfig,
    OptimConfig,
    PatchesConfig,
    RefinementConfig,
    RPNConfig,
    ShapesConfig,
    SplitConfig,
    TestConfig,
    TrainConfig,
    VotingConfig,
)
from resdet.config.values import check

__all__ = [
    "AnchorConfig",
    "AugmentConfig",
    "AugmentationConfig",
    "BackboneConfig",
    "BoxHeadConfig",
    "CascadeConfig",
    "Config",
    "DataConfig",
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
    "check",
    "config_from_yaml",
    "load_config",
    "to_yaml",
]
