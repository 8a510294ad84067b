"""The configs that come with resdet, by name: `quickstart` is configs/quickstart.yaml, in a clone and in the wheel."""

from __future__ import annotations

import os
from pathlib import Path

from resdet.errors import UserError, did_you_mean

PACKAGE = Path(__file__).parents[1]
SUFFIXES = (".yaml", ".yml")


def config_folder() -> Path:
    """The folder of the configs: inside the package where it was installed from a wheel, beside it in a clone.

    Raises UserError if there is neither.
    """
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (folder / "quickstart.yaml").is_file():
            return folder
    raise UserError(f"{PACKAGE}: the configs of resdet are missing from this installation; install it again")


def shipped_configs() -> dict[str, Path]:
    """The configs by name, such as `quickstart` and `he2015/resnet101_coco`, in the order of their names."""
    folder = config_folder()
    files = sorted(folder.rglob("*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def find_config(given: str | Path) -> Path:
    """The file of a config that is given by its name or by its path.

    A name has no suffix. A path that does not exist but has the name of a config, such as configs/quickstart.yaml
    outside a clone, refers to it too. Raises UserError with a suggestion for a name that is not known.
    """
    path = Path(given)
    if path.suffix in SUFFIXES and (path.exists() or path.parts[0] != "configs"):
        return path
    known = shipped_configs()
    name = path.with_suffix("").as_posix().removeprefix("configs/") if path.suffix in SUFFIXES else path.as_posix()
    if name in known:
        return known[name]
    if path.suffix in SUFFIXES or os.path.lexists(path):
        return path
    raise UserError(
        f"{given}: is no config{did_you_mean(name, known)}; give a YAML file, or a name of `resdet configs`"
    )


def summary(config: Path) -> str:
    """The first line of a config's header, which says what the config is."""
    with config.open(encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()
