"""The figures of a result: the object is a mapping from their names to their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from resdet.errors import UserError


class WithFigures(Mapping[str, float | None]):
    """A result that is also a mapping of its `figures`: `result["bbox/AP"]` is a number in 0 .. 1, None where it is
    undefined. Two results are equal only if they are the same object.
    """

    figures: dict[str, float | None]

    def __getitem__(self, name: str) -> float | None:
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def attempt(make: Callable[[], Path], otherwise: str) -> tuple[Path | None, tuple[str, ...]]:
    """The path of what `make` writes; or None and a remark, `otherwise` with {error}, if it cannot be written.

    Drawings and reports come after the work that they show, which must not fail with them.
    """
    try:
        return make(), ()
    except UserError as error:
        return None, (otherwise.format(error=error),)
