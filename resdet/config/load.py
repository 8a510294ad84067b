"""Reads a configuration: files are merged left to right over the defaults, then `key=value` overrides.

An unknown key is an error with a suggestion, and every value is checked when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, get_origin

from resdet.config.check import checked, converted, not_a_group, shown
from resdet.config.declare import Group, Key, declared
from resdet.config.plain_yaml import dump, parse, parse_mapping, read_yaml
from resdet.config.shipped import find_config
from resdet.config.tree import Config
from resdet.errors import UserError, did_you_mean

G = TypeVar("G", bound=Group)


def load_config(*paths: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The defaults, then each file over the previous values, then `key=value` overrides.

    A path may also be the name of a config that comes with resdet, such as `quickstart` (`resdet configs` lists them).
    Raises UserError with the file, the key and a suggestion for every value that does not fit.
    """
    config = Config()
    for path in paths:
        config = _from_source(config, read_yaml(find_config(path)), str(path))
    return _overridden(config, overrides)


def config_from_yaml(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration that `to_yaml` wrote, read back from a run or a checkpoint, then `key=value` overrides."""
    return _overridden(_from_source(Config(), parse_mapping(text, source), source), overrides)


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML, which `config_from_yaml` reads back."""
    return dump(asdict(checked(config)))


def _overridden(config: Config, overrides: Sequence[str]) -> Config:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override!r} is not an override; write key=value, for example train.steps=100")
        value = parse(text, source=shown(override))
        for name in reversed(key.split(".")):
            value = {name: value}
        config = merged(config, value)
    return config


def _from_source(config: Config, data: dict[str, Any], source: str) -> Config:
    try:
        return merged(config, data)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def merged(group: G, data: dict[str, Any], path: str = "") -> G:
    """The group with the values of `data`; `path` is the path of the group. Raises UserError for an unknown key, with
    a suggestion, and for a value that does not fit.
    """
    declarations, changes = declared(type(group), path), dict[str, Any]()
    for name, value in data.items():
        if name not in declarations:
            here = f"{path}.{name}".lstrip(".")
            raise UserError(f"unknown key {here!r}{did_you_mean(name, declarations)}")
        declaration = declarations[name]
        if isinstance(declaration, Key):
            if isinstance(value, dict) and get_origin(declaration.kind) is dict:
                value = {**getattr(group, name), **value}
            changes[name] = converted(declaration, value)
        elif isinstance(value, dict):
            changes[name] = merged(getattr(group, name) or declaration.kind(), value, declaration.path)
        elif value is None and declaration.optional:
            changes[name] = None
        else:
            raise not_a_group(declaration, value)
    return replace(group, **changes)  # pyright: ignore[reportArgumentType]  # every Group is a dataclass
