"""A signal at the place where a test wants it."""

import os
import signal
from typing import Any

import pytest

from resdet.engine.evaluate import detections


def terminate_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM arrives whenever an evaluation predicts a batch."""
    real = detections.predict_batch

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(detections, "predict_batch", interrupted)
