"""A mutant: one small change of the code with which a test must fail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """`old` stands in `file` exactly once and becomes `new`; one of `tests` (files or file::name below tests/) must
    then fail. `reason` says why none can, where no result changes: such a mutant is not counted.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    reason: str = ""

    def applied(self, text: str) -> str:
        """The changed text of the file. Raises ValueError if `old` is not in it exactly once."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.file}: {self.old!r} occurs {count} times and must occur once")
        return text.replace(self.old, self.new)

    @property
    def name(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())} -> {' '.join(self.new.split()) or 'nothing'}"


def mutants(file: str, tests: str, *changes: tuple[str, str]) -> tuple[Mutant, ...]:
    """A mutant for each change of a file, all with the same tests, which are separated by spaces."""
    return tuple(Mutant(file, old, new, tuple(tests.split())) for old, new in changes)


def equivalent(file: str, reason: str, *changes: tuple[str, str]) -> tuple[Mutant, ...]:
    """Changes with which no test can fail, and the reason."""
    return tuple(replace(each, reason=reason) for each in mutants(file, "", *changes))
