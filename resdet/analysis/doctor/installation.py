"""Examines the installed packages: versions against what resdet requires, and OpenCV installed twice."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
import torchvision
from packaging.requirements import Requirement

from resdet.analysis.doctor.finding import Finding

OPENCV = (
    "opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless",
)  # fmt: skip


def packages() -> Finding:
    """The installed versions against the requirements in resdet's metadata."""
    try:
        required = metadata.requires("resdet") or []
    except metadata.PackageNotFoundError:
        return Finding(
            "packages", "note", "resdet is not installed, so its requirements are not known", "pip install -e ."
        )
    wrong = version_clashes(required)
    if wrong:
        return Finding("packages", "problem", "; ".join(wrong), "pip install --upgrade resdet")
    return Finding("packages", "ok", f"torch {torch.__version__}, torchvision {torchvision.__version__}, all in range")


def version_clashes(required: Sequence[str]) -> list[str]:
    """One line for each requirement (without extras) that the installed packages do not meet."""
    lines = []
    for text in required:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            lines.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            lines.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
    return lines


def torch_and_torchvision() -> Finding:
    """Whether torchvision's compiled operators fit torch: those of another version are missing when they are called."""
    try:
        kept = torchvision.ops.nms(torch.tensor([[0.0, 0, 9, 9]] * 2), torch.tensor([0.9, 0.8]), 0.5)
    except (RuntimeError, NotImplementedError) as error:
        versions = f"torchvision {torchvision.__version__} does not fit torch {torch.__version__}"
        seen = f"{versions}: {str(error).splitlines()[0]}"
        return Finding("torchvision", "problem", seen, "pip install --upgrade --force-reinstall torch torchvision")
    assert kept.tolist() == [0]
    return Finding("torchvision", "ok", "its operators fit torch")


def opencv() -> Finding:
    """Several OpenCV packages overwrite each other's files in the folder cv2."""
    return opencv_finding([name for name in OPENCV if _installed(name)])


def opencv_finding(installed: Sequence[str]) -> Finding:
    if len(installed) == 1:
        return Finding("OpenCV", "ok", installed[0])
    remedy = f"pip uninstall {' '.join(installed)}; pip install opencv-python-headless"
    seen = f"installed {len(installed)} times ({', '.join(installed)}), in one folder"
    if not installed:
        seen, remedy = "is missing", "pip install opencv-python-headless"
    return Finding("OpenCV", "problem", seen, remedy)


def shipped_files() -> Finding:
    """Whether the configs and the templates of the report are where resdet looks for them."""
    from resdet.config.shipped import shipped_configs

    template = Path(__file__).parents[1] / "pages/templates/page.html.j2"
    if not template.is_file():
        return Finding("files", "problem", f"{template} is missing", "install resdet again")
    return Finding("files", "ok", f"{len(shipped_configs())} configs, templates")


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False
