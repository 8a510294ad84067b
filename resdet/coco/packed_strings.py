"""Many strings in two buffers, which worker processes share: there are no Python objects whose reference counts would
change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from resdet.coco.groups import row_offsets, take_groups


@dataclass(frozen=True)
class PackedStrings:
    """n strings: string i is `blob[offsets[i] : offsets[i + 1]]` in UTF-8."""

    blob: bytes
    offsets: Int64[np.ndarray, " n1"]

    @classmethod
    def of(cls, strings: Iterable[str]) -> PackedStrings:
        encoded = [string.encode() for string in strings]
        return cls(b"".join(encoded), row_offsets(np.fromiter(map(len, encoded), np.int64, len(encoded))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        return self.blob[self.offsets[index] : self.offsets[index + 1]].decode()

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def take(self, indices: Int64[np.ndarray, " m"]) -> PackedStrings:
        """The chosen strings, in the given order."""
        offsets, characters = take_groups(self.offsets, indices)
        return PackedStrings(np.frombuffer(self.blob, np.uint8)[characters].tobytes(), offsets)
