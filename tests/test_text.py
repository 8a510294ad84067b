import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdet.text import first_few, printable, said_by, shortened


def test_a_character_that_a_terminal_obeys_is_shown_as_its_escape():
    assert printable("cat\x1b[2J\u202edog\n") == r"cat\x1b[2J\u202edog\n"


def test_characters_of_every_script_stay_as_they_are():
    assert printable("Straße, 車, [bold]") == "Straße, 車, [bold]"


@given(st.text(st.characters(codec=None)))
def test_printable_text_can_be_printed_whatever_it_was(text: str):
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


def test_a_long_text_ends_in_three_dots_and_a_short_one_is_whole():
    assert shortened("a" * 60, 60) == "a" * 60
    assert shortened("a" * 61, 60) == "a" * 57 + "..."
    assert len(shortened("\x1b" * 40, 60)) == 60


def test_what_a_library_says_is_one_line_and_its_type_where_it_says_nothing():
    assert said_by(ValueError("  not found:\n\n   the file\x1b[2J ")) == r"not found: the file\x1b[2J"
    assert said_by(ValueError()) == "ValueError"
    assert len(said_by(ValueError("a" * 1000), 120)) == 120


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], ""),
        ([3, 8], "3, 8"),
        ([1, 2, 3], "1, 2, 3"),
        (range(1, 11), "1, 2, 3 and 7 more"),
        (["a\x1b", "b", "c", "d"], r"a\x1b, b, c and 1 more"),
    ],
)
def test_the_first_few_and_how_many_are_left_out(items: list[object], text: str):
    assert first_few(items, 3) == text
