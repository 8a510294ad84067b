"""Examines the installed packages: versions against what resdet and others require, and OpenCV installed twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

import torch
import torchvision
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from resdet.analysis.doctor.finding import Finding
from resdet.text import first_few, said_by

OPENCV = (
    "opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless",
)  # fmt: skip


def packages() -> Finding:
    """The installed versions against the requirements in resdet's metadata, also of the extras that are in use."""
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
    """One line for each requirement that the installed packages do not meet; a package of an extra may be missing."""
    lines = []
    for requirement in map(Requirement, required):
        always = _applies(requirement)
        if not always and not (requirement.marker is not None and "extra" in str(requirement.marker)):
            continue
        version = _version(requirement.name)
        if version is None and always:
            lines.append(f"{requirement.name} is missing")
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            lines.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
    return sorted(set(lines), key=lines.index)


def other_packages() -> Finding:
    """Packages beside resdet that were installed for other versions of what both need, such as pillow or numpy."""
    ours = {canonicalize_name(Requirement(text).name) for text in _requires("resdet")} | {"pillow"}
    wrong = clashes_of_others(
        ((found.name, found.requires or []) for found in metadata.distributions() if found.name != "resdet"), ours
    )
    if wrong:
        remedy = "they may fail; give resdet an environment of its own (docs/install.md)"
        return Finding("others", "note", first_few(wrong, separator="; "), remedy)
    return Finding("others", "ok", "no other package asks for other versions")


def clashes_of_others(distributions: Iterable[tuple[str, Sequence[str]]], ours: set[str]) -> list[str]:
    """One line for each requirement of another distribution, (name, requirements), on a package in `ours` whose
    installed version it excludes.
    """
    lines: list[str] = []
    for name, required in distributions:
        for text in required:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            if canonicalize_name(requirement.name) not in ours or not _applies(requirement):
                continue
            version = _version(requirement.name)
            if version is not None and not requirement.specifier.contains(version, prereleases=True):
                lines.append(f"{name} needs {requirement.name}{requirement.specifier}, installed is {version}")
    return sorted(set(lines))


def _applies(requirement: Requirement) -> bool:
    """Whether a requirement applies here without any extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def torch_and_torchvision() -> Finding:
    """Whether torchvision's compiled operators fit torch: those of another version are missing when they are called."""
    try:
        kept = torchvision.ops.nms(torch.tensor([[0.0, 0, 9, 9]] * 2), torch.tensor([0.9, 0.8]), 0.5)
    except RuntimeError as error:  # also NotImplementedError, for an operator that is missing, which is one of them
        versions = f"torchvision {torchvision.__version__} does not fit torch {torch.__version__}"
        seen = f"{versions}: {said_by(error)}"
        return Finding("torchvision", "problem", seen, "pip install --upgrade --force-reinstall torch torchvision")
    assert kept.tolist() == [0]
    return Finding("torchvision", "ok", "its operators fit torch")


def opencv() -> Finding:
    """Several OpenCV packages overwrite each other's files in the folder cv2."""
    return opencv_finding([name for name in OPENCV if _version(name)])


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
