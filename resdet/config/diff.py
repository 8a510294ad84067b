"""Compares two configurations, and rejects differences that a resumed run or a comparison does not permit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from resdet.config.check import shown
from resdet.config.declare import Key, Rules, walked
from resdet.config.tree import Config
from resdet.errors import UserError

STEPS, MEMORY_FORMAT = "train.steps", "train.channels_last"
OF_PARTS = Rules("a part of the model or of the test that comes or goes")


def flat(config: Config) -> dict[str, Any]:
    """{"train.steps": 90000, ...}; a part that is absent is one key with the value None."""
    return _flat(asdict(config), "")


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The keys with different values in two configs, with both values; None if a part is absent."""
    before, after = flat(old), flat(new)
    return {
        key: (before.get(key), after.get(key))
        for key in dict.fromkeys((*after, *before))
        if before.get(key) != after.get(key)
    }


def resume_warnings(old: Config, new: Config, source: Path) -> list[str]:
    """A line for each key that a resumed run changes with consequences.

    Raises UserError that names the keys if a change would make the run a different experiment.
    """
    changed = {key: values for key, values in differences(old, new).items() if rules_of(key).resume != "free"}
    forbidden = [_change(key, *values) for key, values in changed.items() if rules_of(key).resume == "forbidden"]
    if forbidden:
        raise UserError(
            f"{source}: was trained with another config: {', '.join(forbidden)};"
            " resume with the same one, or start a new --output"
        )
    return [f"{key} was {shown(before)} and is now {shown(after)}" for key, (before, after) in changed.items()]


def check_same_run(old: Config, new: Config, folder: Path) -> None:
    """Raises UserError that names the keys if a folder of a comparison contains a run with another config.

    Keys for the place of computation, and keys that a resumed run may change without a warning, are ignored.
    """
    changed = [
        _change(key, *values)
        for key, values in differences(old, new).items()
        if rules_of(key).resume != "free" and not rules_of(key).place and not _is_found(key, old, new)
    ]
    if changed:
        raise UserError(
            f"{folder}: was trained with another config: {', '.join(changed)};"
            " compare with the same one, or choose another --output"
        )


def _is_found(key: str, old: Config, new: Config) -> bool:
    """Whether training itself finds the value of a key, which may not be known yet: train.steps that follow in both
    from the same epochs or minutes, or a memory format that was left open.
    """
    if key == MEMORY_FORMAT:
        return new.train.channels_last is None
    if key != STEPS:
        return False
    lengths = [(config.train.epochs, config.train.minutes) for config in (old, new)]
    return lengths[0] == lengths[1] != (None, None)


def check_scored_alike(configs: Sequence[tuple[str, Config]]) -> None:
    """Raises UserError for the first of the named contestants that is scored on other images than the first one."""
    (first, ours), *others = configs
    for name, theirs in others:
        for key, (_, value) in differences(ours, theirs).items():
            if rules_of(key).scored_on:
                raise UserError(
                    f"--backbones {name}: {key}={shown(value)} is not {first}'s; all are scored on the same images"
                )


def rules_of(key: str) -> Rules:
    """The declared rules of a key; if a part is absent in one of two configs, the rules of the part."""
    return _rules().get(key, OF_PARTS)


@cache
def _rules() -> dict[str, Rules]:
    return {declared.path: declared.rules for declared in walked(Config) if isinstance(declared, Key)}


def _flat(tree: dict[str, Any], path: str) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return leaves


def _change(key: str, before: Any, after: Any) -> str:
    return f"{key}={shown(after)} (was {shown(before)})"
