"""Text in any script: the fonts with most of its characters, and codes in the place of characters that no font has.

Pillow brings a font of Latin letters, and matplotlib DejaVu Sans (also Greek, Cyrillic, Arabic, Hebrew, Armenian,
Georgian, Lao). Chinese, Japanese, Korean and Indian letters take megabytes; they come from the fonts of the machine,
for example Debian's fonts-noto-core and fonts-noto-cjk, which are under the SIL Open Font License.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, features

from resdet.drawing.tags import Number
from resdet.text import first_few

LAST_OF_PILLOW = 0x17F  # the last Latin letter that Pillow's font has
ALSO_PILLOW = frozenset("…\N{EN DASH}€")
INVISIBLE = frozenset("\u200b\u200c\u200d\u200e\u200f\u2066\u2067\u2068\u2069")  # joiners, marks of direction
LINE = "Ågjy|"  # its height is that of a line
BASELINE = "ls"  # positions are those of the left end of the baseline
# Debian's packages of fonts: of the scripts of China, Japan and Korea, as Unicode names their characters, and the rest.
EAST_ASIAN, OTHERS = "fonts-noto-cjk", "fonts-noto-core"
EAST_ASIAN_NAMES = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")

Font = ImageFont.FreeTypeFont


@lru_cache(maxsize=512)
def text_mask(text: str, size: Number) -> Float[np.ndarray, "h w"]:
    """The coverage of a line of text. Texts of one size have the same height, unless their letters are taller."""
    runs = _runs(text, size)
    ink = [font.getbbox(part, anchor=BASELINE) for part, font in runs]
    lines = [font.getbbox(LINE, anchor=BASELINE) for _, font in runs]
    top = min(box[1] for box in (*ink, *lines))
    bottom = max(box[3] for box in (*ink, *lines))
    starts = np.cumsum([-ink[0][0], *(font.getlength(part) for part, font in runs[:-1])])
    width = starts[-1] + ink[-1][2]
    picture = Image.new("L", (max(1, int(np.ceil(width))), max(1, int(np.ceil(bottom - top)))))
    for start, (part, font) in zip(starts.tolist(), runs, strict=True):
        ImageDraw.Draw(picture).text((start, -top), part, fill=255, font=font, anchor=BASELINE)
    return np.asarray(picture, dtype=np.float32) / 255


def text_width(text: str, size: Number) -> float:
    """The width of a line of text in units of its size."""
    return float(sum(font.getlength(part) for part, font in _runs(text, size)))


def without_font(names: Iterable[str]) -> str:
    """A sentence about the characters of class names that no font of this machine has; empty if there are none."""
    lacking = sorted({character for name in names for character in missing(name)})
    if not lacking:
        return ""
    listed = first_few([f"{character} (U+{ord(character):04X})" for character in lacking])
    east_asian = [unicodedata.name(character, "").startswith(EAST_ASIAN_NAMES) for character in lacking]
    packages = [EAST_ASIAN] * any(east_asian) + [OTHERS] * (not all(east_asian))
    return (
        f"no font of this machine has {listed}: drawings show these codes; install a font, on Debian by"
        f" `apt-get install {' '.join(packages)}`"
    )


def missing(text: str) -> tuple[str, ...]:
    """The characters of a text that no font has."""
    characters = _beyond_pillow(text)
    return tuple(sorted(characters.difference(*(_covered(path, characters) for path in _best_fonts(characters)))))


def legible(text: str) -> str:
    """The text with `U+732B` in the place of a character that no font has, which would be an empty box."""
    lacking = missing(text)
    return "".join(f"U+{ord(each):04X}" if each in lacking else each for each in text) if lacking else text


def _runs(text: str, size: Number) -> list[tuple[str, Font]]:
    """The text that can be drawn, in stretches that one font has; most texts are one stretch.

    A font of one script may lack digits, and no font has all scripts. Each stretch is shaped by itself, and they follow
    one another from left to right.
    """
    shown = legible(text)
    paths = _best_fonts(_beyond_pillow(shown))
    parts: list[tuple[str | None, str]] = []
    for character in shown:
        path = _font_of(character, paths, parts[-1][0] if parts else None)
        if parts and (path == parts[-1][0] or character in INVISIBLE or character == " "):
            parts[-1] = (parts[-1][0], parts[-1][1] + character)
        else:
            parts.append((path, character))
    if len(parts) != 1 or parts[0][0] is None or not features.check("raqm"):  # there marks would be drawn as boxes
        parts = [(path, "".join(c for c in part if c not in INVISIBLE)) for path, part in parts]
    pairs = [(part, _font(path, size)) for path, part in parts if part]
    return pairs or [("", _font(None, size))]


def _font(path: str | None, size: Number) -> Font:
    """The font of a file; None is Pillow's."""
    font = ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
    assert isinstance(font, Font)  # Pillow's of a given size always is
    return font


def _font_of(character: str, paths: Sequence[str], before: str | None) -> str | None:
    """The font of a character: that of the one before it, if it has it; None is Pillow's."""
    if character in INVISIBLE:
        return before or (paths[0] if paths else None)
    having = [path for path in paths if _covered(path, character)]
    return before if before in having else next(iter(having), None)


def _beyond_pillow(text: str) -> frozenset[str]:
    return frozenset(c for c in text if ord(c) > LAST_OF_PILLOW and c not in ALSO_PILLOW and c not in INVISIBLE)


@lru_cache(maxsize=512)
def _best_fonts(characters: frozenset[str]) -> tuple[str, ...]:
    """The font that has most of the characters, then the one with most of the rest, and so on."""
    chosen: list[str] = []
    rest = characters
    while rest:
        best, found = None, frozenset[str]()
        for path in _fonts():
            if len(covered := _covered(path, rest)) > len(found):
                best, found = path, covered
            if found == rest:
                break
        if best is None:
            break
        chosen.append(best)
        rest -= found
    return tuple(chosen)


@cache
def _fonts() -> tuple[str, ...]:
    """DejaVu Sans of matplotlib, then the fonts of the machine, upright sans serif first."""
    import matplotlib
    from matplotlib.font_manager import findSystemFonts

    own = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return (str(own), *sorted(findSystemFonts(), key=_plainness))


def _plainness(path: str) -> tuple[bool, bool, bool, str]:
    name = Path(path).stem.lower()
    return "sans" not in name, "regular" not in name and "-" in name, "mono" in name, name


def _covered(path: str, characters: Iterable[str]) -> frozenset[str]:
    codes = _characters_of(path)
    return frozenset(character for character in characters if ord(character) in codes)


@cache
def _characters_of(path: str) -> frozenset[int]:
    """The codes that a font has; none for a file that Pillow cannot draw with, such as one of coloured pictures."""
    from matplotlib.ft2font import FT2Font

    try:
        _ = ImageFont.truetype(path, 16)
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
