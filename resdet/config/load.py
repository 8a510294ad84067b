"""Reads a configuration: files are merged left to right over the defaults, then `key=value` overrides.

An unknown key is an error with a suggestion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resdet.config.plain_yaml import parse, parse_mapping, read_yaml
from resdet.config.tree import Config
from resdet.config.values import check
from resdet.errors import UserError, did_you_mean


def load_config(*paths: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The defaults, then each file over what came before, then `key=value` overrides.

    Raises UserError with the file, the key and a suggestion for anything that does not fit.
    """
    tree = OmegaConf.structured(Config)
    for path in paths:
        tree = _merged(tree, read_yaml(Path(path)), source=str(path))
    return _finished(_overridden(tree, overrides))


def config_from_yaml(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration that `to_yaml` wrote, read back from a run or a checkpoint, then `key=value` overrides."""
    tree = _merged(OmegaConf.structured(Config), parse_mapping(text, source), source)
    return _finished(_overridden(tree, overrides))


def to_yaml(config: Config) -> str:
    """All of it, for `config_from_yaml` to read back."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _overridden(tree: Any, overrides: Sequence[str]) -> Any:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override!r} is not an override; write key=value, for example train.steps=100")
        tree = _merged(tree, _nested(key.split("."), parse(text, source=override)), source=override)
    return tree


def _finished(tree: Any) -> Config:
    config: Config = OmegaConf.to_object(tree)  # pyright: ignore[reportAssignmentType]
    check(config)
    return config


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _merged(tree: Any, data: dict[str, Any], source: str) -> Any:
    _check_keys(tree, data, (), source)
    try:
        return OmegaConf.merge(tree, data)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: {error.full_key or 'config'}: {reason}") from None


def _check_keys(tree: Any, data: dict[str, Any], path: tuple[str, ...], source: str) -> None:
    for key, value in data.items():
        here = ".".join((*path, str(key)))
        if key not in tree:
            raise UserError(f"{source}: unknown key {here!r}{did_you_mean(str(key), [str(k) for k in tree])}")
        part = _optional_part(tree, key)
        if part and value is None:
            continue
        group = OmegaConf.structured(part) if part else tree[key]
        if OmegaConf.is_dict(group):
            if not isinstance(value, dict):
                raise UserError(f"{source}: {here} is a group of keys ({', '.join(map(str, group))})")
            _check_keys(group, value, (*path, str(key)), source)


def _optional_part(tree: Any, key: str) -> type | None:
    """The dataclass of a part that may be absent (`mask_head: MaskHeadConfig | None`), else None."""
    of_tree = OmegaConf.get_type(tree)
    assert of_tree is not None
    alternatives = get_args(get_type_hints(of_tree)[key])
    return next(
        (kind for kind in alternatives if NoneType in alternatives and isinstance(kind, type) and is_dataclass(kind)),
        None,
    )
