"""Text of foreign origin, made safe to show; text for outputs that lack characters."""

from __future__ import annotations

import json
import re
from typing import Any

#: Control characters, among them terminal escapes; line and paragraph separators; what reverses the direction of
#: writing; surrogates, which no encoding has.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_HIDDEN_IN_LINES = re.compile(_HIDDEN.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))

#: What stands for a character in an encoding without it.
_PLAIN = {
    "±": "+-",
    "−": "-",
    "–": "-",
    "—": "-",
    "·": "-",
    "…": "..",
    "×": "x",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "←": "<-",
    "²": "2",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "█": "#",
}


def visible(text: str) -> str:
    r"""Escape characters that are hidden or steer a terminal, e.g. ``\x1b``."""
    return _HIDDEN.sub(_escaped, text)


def visible_lines(text: str) -> str:
    """Escape as `visible` does, but keep the ends of lines."""
    return _HIDDEN_IN_LINES.sub(_escaped, text)


def one_line(text: str) -> str:
    """Return the text in one line, with single spaces, as `visible` shows it."""
    return visible(" ".join(text.split()))


def value_text(value: Any) -> str:
    """Return a plain value in one line: ``0.1``, ``true``, ``batch`` or ``[3,3]``."""
    if isinstance(value, str) and re.fullmatch(r"[\w./:+-]+", value):
        return value
    return visible(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def encodable(text: str, encoding: str) -> str:
    """Replace characters that the encoding lacks by plain ones: ``+-`` for ``±``, or an escape."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return "".join(_in_encoding(character, encoding) for character in text)


def plain(character: str) -> str:
    """Return what stands for a character in ASCII."""
    return _PLAIN.get(character) or _escape(character)


def _in_encoding(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
        return character
    except UnicodeEncodeError:
        return plain(character)


def _escaped(match: re.Match[str]) -> str:
    return _escape(match.group())


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shape_text(way: int, shot: int) -> str:
    """Return way and shot for people, ``"5-way 1-shot"``; of a regression, whose way is 1, ``"10-shot"``.

    A way of 0 is one that varies, as do the shots.
    """
    if way == 0:
        return "varying ways and shots"
    return f"{shot}-shot" if way == 1 else f"{way}-way {shot}-shot"


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, e.g. ``"1 cell"`` or ``"2 cells"``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
