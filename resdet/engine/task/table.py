"""The table of tasks, and the selection of a task from a config."""

from __future__ import annotations

from typing import Any

from resdet.config import Config, has_no_classes
from resdet.engine.task.classification import Classification
from resdet.engine.task.detection import Detection, FirstStage
from resdet.engine.task.interface import Task

DETECTION, FIRST_STAGE = Detection(), FirstStage()
TASKS: dict[str, Task[Any]] = {
    "detection": DETECTION,
    "classification": Classification(),
}


def task_of(config: Config) -> Task[Any]:
    """The task of a config."""
    return detection_of(config) if config.task == "detection" else TASKS[config.task]


def detection_of(config: Config) -> Detection:
    """The task of a detector's config; a detector without a second stage has its own task."""
    return FIRST_STAGE if has_no_classes(config.model) else DETECTION
