"""Run-length encoded masks: the only codec, and the check of an encoding before compiled code reads it.

Run lengths go down the columns of an image of height x width pixels, background first. COCO's files hold them as a list
of numbers or as a string: five bits a character, least significant first, where the sixth bit says that more follow;
from the fourth number on each is the difference to the one two before (cocoapi, maskApi.c). For an invalid string
pycocotools reads beyond its buffers, never returns, or crashes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer

from resdet.errors import UserError
from resdet.ops.pasting import paste_windows

MASKS_AT_ONCE = 10_000  # bounds the memory of the check
MOST_CHARACTERS = 7  # characters of a number: 35 bits, more than any image has pixels


class RunLengths(TypedDict):
    """A mask in pycocotools' form."""

    size: list[int]  # height, width
    counts: bytes


@dataclass(frozen=True)
class Runs:
    """The run lengths of n masks: mask m has `numbers[offsets[m] : offsets[m + 1]]`."""

    numbers: Int64[np.ndarray, " S"]
    offsets: Int64[np.ndarray, " n1"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Int64[np.ndarray, " s"]:
        return self.numbers[self.offsets[index] : self.offsets[index + 1]]

    @classmethod
    def of(cls, masks: Sequence[Integer[np.ndarray, " _"]]) -> Runs:
        lengths = np.fromiter(map(len, masks), np.int64, len(masks))
        numbers = np.concatenate([np.zeros(0, np.int64), *masks]).astype(np.int64)
        return cls(numbers, _offsets(lengths))

    def owners(self) -> Int64[np.ndarray, " S"]:
        """The mask to which each number belongs."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def places(self) -> Int64[np.ndarray, " S"]:
        """The position of each number in its mask: runs at odd positions are foreground."""
        return np.arange(len(self.numbers)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))

    def areas(self) -> Int64[np.ndarray, " n"]:
        """Pixels inside each mask."""
        inside = self.places() % 2 == 1
        areas = np.zeros(len(self), np.int64)
        np.add.at(areas, self.owners()[inside], self.numbers[inside])
        return areas

    def faults(self, pixels: Int64[np.ndarray, " n"]) -> dict[int, str]:
        """The reasons why masks are not encodings of images with this number of pixels, by mask."""
        owners, totals = self.owners(), np.zeros(len(self), np.int64)
        np.add.at(totals, owners, self.numbers)
        faults = dict.fromkeys(np.flatnonzero(totals != pixels).tolist(), "the runs do not add up to its pixels")
        faults |= dict.fromkeys(np.unique(owners[self.numbers < 0]).tolist(), "a run length is negative")
        return faults

    def with_empty_runs(self) -> Int64[np.ndarray, " m"]:
        """The masks with a run of length 0 after the first run: pycocotools' union stops early there."""
        return np.unique(self.owners()[(self.numbers == 0) & (self.places() > 0)])


def without_empty_runs(runs: Integer[np.ndarray, " s"]) -> Int64[np.ndarray, " t"]:
    """The same pixels with no run of length 0 except the first."""
    ends = np.cumsum(runs, dtype=np.int64)
    places, changes = np.unique(ends[:-1], return_counts=True)
    # if an even number of empty runs lies between, the value does not change
    places = places[(changes % 2 == 1) & (places < ends[-1])]
    return np.diff(np.concatenate(([0], places, ends[-1:])))


def decode(strings: Sequence[bytes]) -> tuple[Runs, dict[int, str]]:
    """The numbers in COCO's strings, and by index the errors of invalid strings, which have no numbers.

    `Runs.faults` checks whether the numbers fit an image.
    """
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    characters = np.frombuffer(b"".join(strings), np.uint8).astype(np.int64) - 48
    owners = np.repeat(np.arange(len(strings)), lengths)
    faults = _string_faults(characters, owners, lengths)
    if faults:
        sound = ~np.isin(owners, list(faults))
        characters, owners = characters[sound], owners[sound]
    ends = np.flatnonzero((characters & 32) == 0)
    owner = owners[ends]
    lengths = np.bincount(owner, minlength=len(strings))
    numbers = _numbers(characters, ends)
    return Runs(_undo_differences(numbers, lengths), _offsets(lengths)), faults


def decode_one(string: bytes) -> Int64[np.ndarray, " s"]:
    """The numbers in one string that is known to be valid, because pycocotools or `compress` made it."""
    characters = np.frombuffer(string, np.uint8).astype(np.int64) - 48
    numbers = _numbers(characters, np.flatnonzero((characters & 32) == 0))
    for chain in (numbers[1::2], numbers[2::2]):
        np.cumsum(chain, out=chain)
    return numbers


def _string_faults(
    characters: Int64[np.ndarray, " c"], owners: Int64[np.ndarray, " c"], lengths: Int64[np.ndarray, " n"]
) -> dict[int, str]:
    last = (characters & 32) == 0  # characters of a number
    ends = np.flatnonzero(last)
    filled = np.flatnonzero(lengths > 0)
    culprits = {
        "a run is longer than any image": owners[ends[np.diff(ends, prepend=-1) > MOST_CHARACTERS]],
        "it is cut off": filled[~last[np.cumsum(lengths)[filled] - 1]],
        "a character is out of range": owners[(characters < 0) | (characters > 63)],
        "it is empty": np.flatnonzero(lengths == 0),
    }
    return {index: reason for reason, indices in culprits.items() for index in np.unique(indices).tolist()}


def _numbers(characters: Int64[np.ndarray, " c"], ends: Int64[np.ndarray, " s"]) -> Int64[np.ndarray, " s"]:
    """Decodes each number from its characters; `ends` are the positions of the last characters."""
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts + 1
    place = np.arange(len(characters)) - np.repeat(starts, digits)
    numbers = np.add.reduceat((characters & 31) << (5 * place), starts)
    return numbers - np.where(characters[ends] & 16, np.int64(1) << (5 * digits), 0)  # the sign


def _undo_differences(numbers: Int64[np.ndarray, " s"], lengths: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " s"]:
    """Cumulative sums along three chains of each mask: its first number, the odd positions, and the even positions."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(numbers)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    chain = owner * 3 + np.where(place == 0, 0, 1 + place % 2)
    order = np.argsort(chain, kind="stable")
    sums = np.cumsum(numbers[order])
    first = np.searchsorted(chain[order], chain[order])
    total = np.empty_like(numbers)
    total[order] = sums - (sums - numbers[order])[first]
    return total


def compress(masks: Sequence[Integer[np.ndarray, " _"]]) -> list[bytes]:
    """Encodes the run lengths of many masks as COCO's strings, one character position of all numbers at a time."""
    if not masks:
        return []
    runs = Runs.of(masks)
    later = np.flatnonzero(runs.places() > 2)
    rest = runs.numbers.copy()
    rest[later] -= runs.numbers[later - 2]

    characters = np.zeros((len(rest), 13), np.uint8)  # 64 bits; 0 after the end of a number
    left = np.arange(len(rest))
    for digits in characters.T:
        bits = rest & 31
        rest = rest >> 5
        more = rest != -(bits >> 4)  # more than the sign remains
        digits[left] = 48 + bits + 32 * more
        left, rest = left[more], rest[more]
        if not len(left):
            break
    written = characters != 0
    text = characters[written].tobytes()
    ends = np.cumsum(np.add.reduceat(written.sum(1), runs.offsets[:-1])).tolist()
    return [text[start:end] for start, end in pairwise([0, *ends])]


def encode_masks(
    masks: Float[np.ndarray, "n M M"], boxes: Float[np.ndarray, "n 4"], height: int, width: int
) -> list[RunLengths]:
    """The result of pycocotools' `encode` for `resdet.ops.pasting.paste_masks`, without creating the image."""
    windows = paste_windows(masks, boxes, height, width)
    runs = [_window_runs(pixels, x, y, height, width) for pixels, x, y in windows]
    return [RunLengths(size=[height, width], counts=counts) for counts in compress(runs)]


def encode_pixels(pixels: Bool[np.ndarray, "h w"], x: int, y: int, height: int, width: int) -> RunLengths:
    """The run lengths of an image of `height` x `width` with a mask in the window whose first pixel is at (x, y)."""
    (counts,) = compress([_window_runs(pixels.T, x, y, height, width)])
    return RunLengths(size=[height, width], counts=counts)


def _window_runs(window: Bool[np.ndarray, "w h"], x: int, y: int, height: int, width: int) -> Int64[np.ndarray, " n"]:
    """The run lengths of an image with an object in a window at (x, y); the window is stored column by column."""
    columns, rows = window.shape
    walled = np.zeros(columns * (rows + 1) + 1, bool)  # background before the first column and after each column
    walled[1:].reshape(columns, rows + 1)[:, :rows] = window
    column, row = np.divmod(np.flatnonzero(walled[1:] != walled[:-1]), rows + 1)
    changes = (x + column) * height + y + row  # the object begins and ends alternately
    if rows == height:  # an object may continue from one column into the next
        joined = np.flatnonzero(changes[1:-1:2] == changes[2::2]) * 2
        changes = np.delete(changes, np.concatenate((joined + 1, joined + 2)))
    end = height * width
    ends = changes if len(changes) and changes[-1] == end else np.append(changes, end)
    return np.diff(ends, prepend=0)


def checked_masks(
    segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]], where: Callable[[int], str]
) -> list[RunLengths]:
    """Run-length encodings of a results file in pycocotools' form, each valid and with the (height, width) of its
    image.

    `where` gives the name of an entry for messages. Raises UserError for the first invalid one.
    """
    masks = [
        RunLengths(size=[height, width], counts=_counts(segmentation, height, width, where, index))
        for index, (segmentation, (height, width)) in enumerate(zip(segmentations, sizes, strict=True))
    ]
    for start in range(0, len(masks), MASKS_AT_ONCE):
        part = masks[start : start + MASKS_AT_ONCE]
        runs, faults = decode([mask["counts"] for mask in part])
        faults = faults or runs.faults(np.array([mask["size"] for mask in part], np.int64).prod(axis=1))
        if faults:
            index = min(faults)
            height, width = part[index]["size"]
            raise UserError(
                f"{where(start + index)}: the mask is no run-length encoding of {height}x{width} pixels: "
                f"{faults[index]}; write masks as pycocotools encodes them"
            )
        for index in runs.with_empty_runs().tolist():
            part[index]["counts"] = compress([without_empty_runs(runs[index])])[0]
    return masks


def mask_areas(masks: Sequence[RunLengths]) -> Int64[np.ndarray, " n"]:
    """The number of pixels inside each valid mask."""
    parts = [masks[start : start + MASKS_AT_ONCE] for start in range(0, len(masks), MASKS_AT_ONCE)]
    areas = [decode([mask["counts"] for mask in part])[0].areas() for part in parts]
    return np.concatenate([np.zeros(0, np.int64), *areas])


def _counts(segmentation: Any, height: int, width: int, where: Callable[[int], str], index: int) -> bytes:
    if not isinstance(segmentation, dict) or "size" not in segmentation or "counts" not in segmentation:
        raise UserError(
            f"{where(index)}: segmentation is not a run-length encoding with size and counts; write masks as "
            "pycocotools encodes them"
        )
    size, counts = segmentation["size"], segmentation["counts"]
    if size not in ([height, width], (height, width)):
        raise UserError(
            f"{where(index)}: the mask's size is {size} but its image has (height, width) {[height, width]}; "
            "paste masks into the original image before writing them"
        )
    if isinstance(counts, bytes):
        return counts
    if isinstance(counts, str) and counts.isascii():
        return counts.encode()
    if isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts):
        if sum(counts) != height * width:
            raise UserError(
                f"{where(index)}: the mask's runs add up to {sum(counts)}, not to {height}x{width} pixels; correct them"
            )
        return compress([without_empty_runs(np.array(counts, np.int64))])[0]
    raise UserError(
        f"{where(index)}: the mask's counts {str(counts)[:40]!r} are neither run lengths nor their string form; "
        "write masks as pycocotools encodes them"
    )


def _offsets(lengths: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n1"]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))
