"""Text in scripts: what a font of this machine has is drawn, what none has is named by its code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from resdet.drawing import fonts
from resdet.drawing.fonts import legible, missing, text_mask, text_width, without_font

NOWHERE = "\U0010fffd"  # a code for private use, which no font has


@pytest.mark.parametrize("text", ["cat", "Käfer", "кошка", "γάτα", "قطة", "חתול", "კატა", "a…b", ""])
def test_letters_of_the_fonts_that_come_along_are_not_missing(text: str) -> None:
    assert missing(text) == ()
    assert legible(text) == text
    assert without_font([text]) == ""


def test_a_character_without_a_font_is_shown_as_its_code() -> None:
    assert missing(f"a{NOWHERE}") == (NOWHERE,)
    assert legible(f"a{NOWHERE}b") == "aU+10FFFDb"
    np.testing.assert_array_equal(text_mask(f"a{NOWHERE}b", 20), text_mask("aU+10FFFDb", 20))


def test_what_is_missing_is_said_once_for_all_names() -> None:
    said = without_font([NOWHERE, f"{NOWHERE}{NOWHERE}", "cat"])
    assert "(U+10FFFD): drawings show these codes" in said
    assert said.count("U+10FFFD") == 1
    assert said.endswith("`apt-get install fonts-noto-core`")


def test_the_remedy_names_the_package_of_the_scripts_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "missing", lambda name: tuple(name))  # whatever fonts this machine has
    for names, packages in (
        (["猫", "ねこ", "고양이"], "fonts-noto-cjk"),
        (["बिल्ली"], "fonts-noto-core"),
        (["猫", "แมว"], "fonts-noto-cjk fonts-noto-core"),
    ):
        assert without_font(names).endswith(f"`apt-get install {packages}`")


def test_marks_of_direction_take_no_room() -> None:
    assert text_width("\u2068cat\u2069", 20) == text_width("cat", 20)


@pytest.mark.parametrize("text", ["cat", "кошка", "قطة"])
def test_a_text_grows_with_its_size_and_has_ink(text: str) -> None:
    assert text_width(text, 40) == pytest.approx(2 * text_width(text, 20), rel=0.1)
    mask = text_mask(text, 20)
    assert mask.max() > 0.5
    assert mask.min() >= 0


def test_lines_of_latin_letters_have_one_height() -> None:
    assert {text_mask(text, 18).shape[0] for text in ("a", "g", "Å", "cat 0.93")} == {text_mask("b", 18).shape[0]}


@pytest.fixture
def symbols_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A font that has a sum sign but no digits, and then DejaVu Sans."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = tuple(str(folder / name) for name in ("STIXSizOneSymReg.ttf", "DejaVuSans.ttf"))
    monkeypatch.setattr(fonts, "_fonts", lambda: files)
    for cached in (fonts._best_fonts, fonts.text_mask):
        cached.cache_clear()
    yield
    for cached in (fonts._best_fonts, fonts.text_mask):
        cached.cache_clear()


@pytest.mark.usefixtures("symbols_first")
def test_what_a_font_lacks_is_drawn_with_another() -> None:
    """A score behind a name in a script whose font has no digits, and two scripts in one name."""
    score = text_mask("0.45", 20)
    behind = text_mask("∑ 0.45", 20)[:, -score.shape[1] :]
    assert behind.sum() == pytest.approx(score.sum(), rel=0.1)
    assert missing("∑ кошка 0.45") == ()
    parts = sum(text_width(text, 20) for text in ("∑ ", "кошка ", "0.45"))
    assert text_width("∑ кошка 0.45", 20) == pytest.approx(parts, rel=0.1)
