"""What the doctor says about one subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """A subject, what was seen, and what to do: a problem stops some command, a note may slow it down."""

    subject: str
    verdict: Verdict
    seen: str
    remedy: str = ""
