"""Checks every value of a configuration in the same way, whether it comes from a file, an override or Python."""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from dataclasses import replace
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from resdet.config.declare import Group, Key, Part, Rules, declared, walked
from resdet.config.plain_yaml import as_yaml
from resdet.config.tree import Config
from resdet.errors import UserError, did_you_mean
from resdet.text import shortened

G = TypeVar("G", bound=Group)
LONGEST_SHOWN = 100  # characters of a value in a message
DEEPEST = 5  # lists and mappings inside one another
LONGEST_TEXT = 4096  # characters: the longest path that Linux takes
MOST_ARGUMENTS = 100  # of a key with values by name
NAMES = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers"), str: ("text", "texts")}


def checked(group: G) -> G:
    """A copy of a configuration, or of a part of it, in which every value has its key's type.

    Python code may have assigned any value, so `train`, `evaluate` and `build_model` call this first. Raises UserError
    that names the key for a value that does not fit.
    """
    return _checked(group, _path_of(type(group)))


def converted(key: Key, value: Any) -> Any:
    """A value converted to the key's type. Raises UserError, one line that names the key and the permitted values."""
    if value is None and key.optional:
        return None
    try:
        if get_origin(key.kind) is dict:
            return _as_names(value) if get_args(key.kind)[1] is str else _as_arguments(value)
        return _as(key.kind, value, key.rules)
    except ValueError:
        raise UserError(f"{key.path}={shown(value)} {_fault(key, value)}") from None


def _fault(key: Key, value: Any) -> str:
    """The reason why a value does not fit."""
    if isinstance(value, str) and "${" in value:
        return "refers to another value or to the environment, which a config cannot; write the value out"
    if get_origin(key.kind) is Literal:
        return f"is not known{did_you_mean(shown(value), get_args(key.kind))}"
    if get_origin(key.kind) is list and value == []:
        return f"is empty; give {expected(key)}"
    as_text = "; as it is written it is text" if isinstance(value, str) and re.search("[0-9]", value) else ""
    return f"must be {expected(key)}{as_text}"


def expected(key: Key) -> str:
    """The permitted values of the key, in words: "a whole number of at least 1 and at most 8, or null"."""
    if get_origin(key.kind) is dict and get_args(key.kind)[1] is str:
        return "names by name, such as {old: new}"
    if get_origin(key.kind) is dict:
        return "plain values by name, such as {first: 0.9, second: [1, 2]}"
    return _in_words(key.kind, key.rules) + (", or null" if key.optional else "")


def bounds(rules: Rules) -> str:
    """ "of at least 1 and at most 8", "above 0"; empty without bounds."""
    lower = f"above {rules.gt:g}" if rules.gt is not None else f"of at least {_figure(rules.ge)}"
    return f"{lower} and at most {_figure(rules.le)}" if math.isfinite(rules.le) else ""


def not_a_group(part: Part, value: Any) -> UserError:
    """The error for a value other than a mapping of keys (or null, for an optional part) in the place of a part."""
    keys = ", ".join(declared(part.kind))
    return UserError(f"{part.path}={shown(value)}: {part.path} is a group of keys ({keys})")


def shown(value: Any) -> str:
    """A value as a user writes it in a config, on one line, shortened if it is long."""
    return shortened(value if isinstance(value, str) and value.isprintable() else as_yaml(value), LONGEST_SHOWN)


@cache
def _path_of(group: type[Group]) -> str:
    """The place of a kind of group in the tree (the first of two places); "" for the whole tree."""
    parts = (declaration for declaration in walked(Config) if isinstance(declaration, Part))
    return next((part.path for part in parts if part.kind is group), "")


def _checked(group: G, path: str) -> G:
    changes: dict[str, Any] = {}
    for name, declaration in declared(type(group), path).items():
        value = getattr(group, name)
        if isinstance(declaration, Key):
            changes[name] = converted(declaration, value)
        elif value is None and declaration.optional:
            changes[name] = None
        elif isinstance(value, declaration.kind):
            changes[name] = _checked(value, declaration.path)
        else:
            raise not_a_group(declaration, value)
    return replace(group, **changes)  # pyright: ignore[reportArgumentType]  # every Group is a dataclass


def _as(kind: Any, value: Any, rules: Rules, *, outer: bool = True) -> Any:
    """The value as a plain Python value of that kind. Raises ValueError if it is of another kind or out of bounds."""
    origin = get_origin(kind)
    if origin is list:
        return _as_list(kind, value, rules, outer=outer)
    if origin is dict:
        return _as_row(value)
    if origin is Literal and isinstance(value, str) and value in get_args(kind):
        return str(value)
    if kind is bool and isinstance(value, bool):
        return value
    if isinstance(value, bool):
        raise ValueError
    if kind is str and isinstance(value, str | int):  # a name may be a number: 2017
        return _text(str(value))
    if kind is int and isinstance(value, numbers.Integral):
        return int(_within(value, rules))
    if kind is float and isinstance(value, numbers.Real):
        return float(_within(value, rules))
    raise ValueError


def _as_list(kind: Any, value: Any, rules: Rules, *, outer: bool) -> list[Any]:
    if isinstance(value, str) and (rules.alone or get_origin(get_args(kind)[0]) is dict):
        value = [value]
    shortest, longest = rules.length if outer else (rules.item_length or 0, rules.item_length or 0)
    if not isinstance(value, list | tuple) or not shortest <= len(value) <= longest:
        raise ValueError
    (item,) = get_args(kind)
    return [_as(item, each, rules, outer=False) for each in value]


def _as_row(value: Any) -> dict[str, Any]:
    """One name with its arguments, {name: {argument: value}}; a name alone has none."""
    value = {value: {}} if isinstance(value, str) else value
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError
    ((name, arguments),) = value.items()
    if not isinstance(name, str) or not isinstance(arguments, dict | None):
        raise ValueError
    return {_text(name): _as_plain(arguments or {})}


def _as_plain(value: Any, depth: int = 0) -> Any:
    """Plain values of YAML: text, finite numbers, true and false, null, and lists and mappings of them."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    if depth < DEEPEST and isinstance(value, list | tuple):
        return [_as_plain(each, depth + 1) for each in value]
    if depth < DEEPEST and isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {_text(name): _as_plain(each, depth + 1) for name, each in value.items()}
    raise ValueError


def _within(value: Any, rules: Rules) -> Any:
    # NaN is never within bounds
    if not rules.ge <= value <= rules.le or (rules.gt is not None and not value > rules.gt):
        raise ValueError
    return value


def _text(value: str) -> str:
    """Text without control characters, without characters that UTF-8 cannot encode, and without a reference to another
    key.
    """
    if (
        len(value) > LONGEST_TEXT
        or "${" in value
        or any(unicodedata.category(character) in ("Cc", "Cs") for character in value)
    ):
        raise ValueError
    return value


def _as_arguments(value: Any) -> dict[str, Any]:
    """Plain values by name (see `_as_plain`)."""
    if not isinstance(value, dict) or len(value) > MOST_ARGUMENTS:
        raise ValueError
    if not all(isinstance(name, str) and name.isidentifier() and len(name) <= LONGEST_SHOWN for name in value):
        raise ValueError
    return {str(name): _as_plain(each) for name, each in value.items()}


def _as_names(value: Any) -> dict[str, str]:
    """Text by text."""
    if not isinstance(value, dict) or len(value) > MOST_ARGUMENTS**2:
        raise ValueError
    if not all(isinstance(text, str | int) and not isinstance(text, bool) for pair in value.items() for text in pair):
        raise ValueError
    return {_text(str(old)): _text(str(new)) for old, new in value.items()}


def _in_words(kind: Any, rules: Rules) -> str:
    if kind is bool:
        return "true or false"
    if kind is str:
        return f"text of at most {LONGEST_TEXT} printable characters, in quotes where it looks like another value"
    if get_origin(kind) is not list:
        return f"{NAMES[kind][0]} {bounds(rules)}"
    shortest, longest = rules.length
    count = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    (item,) = get_args(kind)
    if get_origin(item) is dict:
        return f"a list of {count} names, each alone or with its arguments: [{{name: {{argument: value}}}}]"
    if get_origin(item) is list:
        (number,) = get_args(item)
        return f"a list of {count} lists of {rules.item_length} {NAMES[number][1]} {bounds(rules)}"
    return f"a list of {count} {NAMES[item][1]} {bounds(rules)}".rstrip()


def _figure(number: int | float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
