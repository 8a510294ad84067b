"""Text in any script: the font with most of its characters, and codes in the place of characters that no font has.

Pillow brings a font of Latin letters, and matplotlib DejaVu Sans (also Greek, Cyrillic, Arabic, Hebrew, Armenian,
Georgian, Lao). Chinese, Japanese, Korean and Indian letters take megabytes; they come from the fonts of the machine,
for example Debian's fonts-noto-core and fonts-noto-cjk, which are under the SIL Open Font License.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
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
PACKAGES = "fonts-noto-core, fonts-noto-cjk"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=512)
def text_mask(text: str, size: Number) -> Float[np.ndarray, "h w"]:
    """The coverage of a line of text. Texts of one size have the same height, unless their letters are taller."""
    text, font = _with_font(text, size)
    _, top, _, bottom = font.getbbox(LINE)
    left, own_top, right, own_bottom = font.getbbox(text)
    top, bottom = min(top, own_top), max(bottom, own_bottom)
    picture = Image.new("L", (max(1, int(np.ceil(right - left))), max(1, int(np.ceil(bottom - top)))))
    ImageDraw.Draw(picture).text((-left, -top), text, fill=255, font=font)
    return np.asarray(picture, dtype=np.float32) / 255


def text_width(text: str, size: Number) -> float:
    """The width of a line of text in units of its size."""
    text, font = _with_font(text, size)
    return float(font.getlength(text))


def without_font(names: Iterable[str]) -> str:
    """A sentence about the characters of class names that no font of this machine has; empty if there are none."""
    lacking = sorted({character for name in names for character in missing(name)})
    if not lacking:
        return ""
    listed = first_few([f"{character} (U+{ord(character):04X})" for character in lacking])
    return f"no font of this machine has {listed}: drawings show these codes; install a font, such as {PACKAGES}"


def missing(text: str) -> tuple[str, ...]:
    """The characters of a text that its font lacks."""
    characters = _beyond_pillow(text)
    return tuple(sorted(characters - _covered(_best_font(characters), characters))) if characters else ()


def legible(text: str) -> str:
    """The text with `U+732B` in the place of a character that its font lacks, which would be an empty box."""
    lacking = missing(text)
    return "".join(f"U+{ord(each):04X}" if each in lacking else each for each in text) if lacking else text


def _with_font(text: str, size: Number) -> tuple[str, Font]:
    """The text that can be drawn, and the font for it."""
    shown, characters = legible(text), _beyond_pillow(text)
    path = _best_font(characters) if characters else None
    if path is None or not features.check("raqm"):  # there joiners and marks of direction would be drawn as boxes
        shown = "".join(character for character in shown if character not in INVISIBLE)
    return shown, ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _beyond_pillow(text: str) -> frozenset[str]:
    return frozenset(c for c in text if ord(c) > LAST_OF_PILLOW and c not in ALSO_PILLOW and c not in INVISIBLE)


@lru_cache(maxsize=512)
def _best_font(characters: frozenset[str]) -> str | None:
    """The first font that has all of the characters, otherwise the one with most; None if none has any."""
    best, most = None, 0
    for path in _fonts():
        count = len(_covered(path, characters))
        if count > most:
            best, most = path, count
        if most == len(characters):
            break
    return best


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


def _covered(path: str | None, characters: Collection[str]) -> frozenset[str]:
    codes = _characters_of(path) if path else frozenset()
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
