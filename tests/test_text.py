"""Texts that every terminal shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metabench.text import encodable, one_line, visible, visible_lines


@given(st.text())
def test_visible_text_steers_no_terminal(text: str) -> None:
    shown = visible(text)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    assert visible(shown) == shown
    assert visible_lines(text).splitlines() == visible_lines(text).split("\n")[: len(visible_lines(text).splitlines())]
    shown.encode("utf-8")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == visible_lines(text) == encodable(text, "ascii") == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b1m", r"\x9b1m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("ü ± 你 🙂", "ü ± 你 🙂"),
    ],
)
def test_hidden_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_text_in_one_line_has_single_spaces() -> None:
    assert one_line(" a\n\n b\t\x1bc ") == r"a b \x1bc"


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "cp437", "utf-8"]))
def test_every_text_can_be_encoded(text: str, encoding: str) -> None:
    shown = encodable(text, encoding)
    shown.encode(encoding)
    assert encodable(shown, encoding) == shown


def test_what_an_encoding_lacks_is_replaced() -> None:
    text = "1 · 96.04 ± 0.37 − … × ü"
    assert encodable(text, "ascii") == r"1 - 96.04 +- 0.37 - .. x \xfc"
    assert encodable(text, "cp1252") == "1 · 96.04 ± 0.37 - … × ü"
    assert encodable(text, "utf-8") == text
