"""resdet trains, evaluates and compares object detectors. The names below are its public interface.

They are imported at first use, so that `import resdet` and the command line's `--help` need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from resdet.version import __version__

if TYPE_CHECKING:
    from resdet.config import load_config
    from resdet.models.build.detector import build_model
    from resdet.predict.load import load
    from resdet.predict.prediction import Prediction
    from resdet.predict.predictor import Predictor
    from resdet.predict.tiles import Tiling
    from resdet.predict.video import Camera, Video
    from resdet.workflows.augmented_sheet import draw_augmented
    from resdet.workflows.compare import compare
    from resdet.workflows.evaluate import evaluate
    from resdet.workflows.export import export
    from resdet.workflows.find_learning_rate import find_learning_rate
    from resdet.workflows.open_dataset import open_dataset
    from resdet.workflows.predict import predict_folder
    from resdet.workflows.push import push
    from resdet.workflows.train import train

__all__ = [
    "Camera",
    "Prediction",
    "Predictor",
    "Tiling",
    "Video",
    "__version__",
    "build_model",
    "compare",
    "draw_augmented",
    "evaluate",
    "export",
    "find_learning_rate",
    "load",
    "load_config",
    "open_dataset",
    "predict_folder",
    "push",
    "train",
]

_HOMES = {  # the module of each name
    "Camera": "resdet.predict.video",
    "Prediction": "resdet.predict.prediction",
    "Predictor": "resdet.predict.predictor",
    "Tiling": "resdet.predict.tiles",
    "Video": "resdet.predict.video",
    "build_model": "resdet.models.build.detector",
    "compare": "resdet.workflows.compare",
    "draw_augmented": "resdet.workflows.augmented_sheet",
    "evaluate": "resdet.workflows.evaluate",
    "export": "resdet.workflows.export",
    "find_learning_rate": "resdet.workflows.find_learning_rate",
    "load": "resdet.predict.load",
    "load_config": "resdet.config",
    "open_dataset": "resdet.workflows.open_dataset",
    "predict_folder": "resdet.workflows.predict",
    "push": "resdet.workflows.push",
    "train": "resdet.workflows.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'resdet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
