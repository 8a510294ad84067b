"""Declares a key of the configuration in one place: its type, default, bounds and a line of help.

The checks of choices and bounds, the text of `--help-config`, and the rules for resumed runs and comparisons use it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from resdet.errors import UserError, did_you_mean

Resume = Literal["forbidden", "warned", "free"]
T = TypeVar("T")

# Upper bounds, far above any practical value: a larger number is a mistake, and would exhaust the time or the memory.
COUNT = 1_000_000_000  # steps
MANY = 1_000_000  # images, classes, channels, regions
PIXELS = 1_000_000  # of a side
SEED = 2**32 - 1
FINITE = 1e38  # just below the largest float32


@dataclass(frozen=True)
class Rules:
    """The rules for a key beyond its type."""

    help: str
    ge: int | float = -math.inf  # for a number, and for each number of a list
    gt: int | float | None = None
    le: int | float = math.inf
    length: tuple[int, int] = (0, 10_000)  # the shortest and the longest permitted list
    item_length: int | None = None  # for each list of a list of lists
    alone: bool = False  # for a list: one item may be written without a list
    resume: Resume = "forbidden"  # whether a resumed run may change it
    place: bool = False  # the key says where a run finds its files or computes, and does not change the result
    # the key selects the images on which a detector is scored: it must be equal for all detectors of a comparison
    scored_on: bool = False


def key(
    default: T,
    *,
    help: str,
    ge: int | float = -math.inf,
    gt: int | float | None = None,
    le: int | float = math.inf,
    length: tuple[int, int] = (0, 10_000),
    item_length: int | None = None,
    alone: bool = False,
    resume: Resume = "forbidden",
    place: bool = False,
    scored_on: bool = False,
) -> T:
    """A key of a `Group`: its default and its rules (see `Rules`); the annotation is its type."""
    rules = Rules(help, ge, gt, le, length, item_length, alone, resume, place, scored_on)
    return field(default_factory=lambda: copy.deepcopy(default), metadata={"rules": rules})  # pyright: ignore


def part(kind: type[T], *, scored_on: bool = False) -> T:
    """A group of keys inside another group, with its own defaults. `scored_on` holds for all of its keys."""
    return field(default_factory=kind, metadata={"scored_on": scored_on})


class Group:
    """A dataclass of keys and parts. Assigning an unknown name raises UserError with a suggestion."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        known = getattr(self, "__dataclass_fields__", {})
        if name not in known:
            raise UserError(f"{type(self).__name__} has no key {name!r}{did_you_mean(name, known)}")
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Key:
    """A declared key: `kind` is its type (int, float, str, bool, a Literal, a list) without the None of an optional
    key.
    """

    path: str
    kind: Any
    optional: bool
    default: Any
    rules: Rules


@dataclass(frozen=True)
class Part:
    """A declared part: a group of keys, or, when it is optional, also its absence (None)."""

    path: str
    kind: type[Group]
    optional: bool
    scored_on: bool


@cache
def declared(group: type[Group], path: str = "", *, scored_on: bool = False) -> dict[str, Key | Part]:
    """The keys and parts that a group declares, by name, in the order of the tree. `path` is the path of the group
    itself.
    """
    hints = get_type_hints(group)
    return {
        own.name: _declaration(own, hints[own.name], f"{path}.{own.name}".lstrip("."), scored_on=scored_on)
        for own in fields(group)  # pyright: ignore[reportArgumentType]  # every Group is a dataclass
    }


def walked(group: type[Group], path: str = "", *, scored_on: bool = False) -> Iterator[Key | Part]:
    """Every key and part below a group, a part before its keys."""
    for declaration in declared(group, path, scored_on=scored_on).values():
        yield declaration
        if isinstance(declaration, Part):
            yield from walked(declaration.kind, declaration.path, scored_on=declaration.scored_on)


def _declaration(own: Field[Any], hint: Any, path: str, *, scored_on: bool) -> Key | Part:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    optional = NoneType in kinds
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    if isinstance(kind, type) and issubclass(kind, Group):
        return Part(path, kind, optional, own.metadata.get("scored_on", False) or scored_on)
    rules = own.metadata["rules"]
    assert own.default_factory is not MISSING
    return Key(path, kind, optional, own.default_factory(), replace(rules, scored_on=rules.scored_on or scored_on))
