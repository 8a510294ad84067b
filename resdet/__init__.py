"""resdet trains, evaluates and compares object detectors. The names below are its public interface.

They are imported at first use, so that `import resdet` and the command line's `--help` need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from resdet.version import __version__

if TYPE_CHECKING:
    from resdet.config import load_config
    from resdet.engine.evaluate import evaluate
    from resdet.engine.train import train
    from resdet.models.build.detector import build_model
    from resdet.predict.load import load
    from resdet.predict.prediction import Prediction
    from resdet.predict.predictor import Predictor

__all__ = ["Prediction", "Predictor", "__version__", "build_model", "evaluate", "load", "load_config", "train"]

_DOOR = {
    "load_config": ("resdet.config", "load_config"),
    "build_model": ("resdet.models.build.detector", "build_model"),
    "train": ("resdet.engine.train", "train"),
    "evaluate": ("resdet.engine.evaluate", "evaluate"),
    "load": ("resdet.predict.load", "load"),
    "Prediction": ("resdet.predict.prediction", "Prediction"),
    "Predictor": ("resdet.predict.predictor", "Predictor"),
}


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'resdet' has no attribute {name!r}")
    module, attribute = _DOOR[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
