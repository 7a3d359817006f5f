"""Text in Markdown, HTML and LaTeX."""

from __future__ import annotations

import html
import re
import unicodedata

from metabench.text import one_line, plain


def escape_markdown(text: str) -> str:
    """Escape a text for Markdown and for HTML within it."""
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", html.escape(one_line(text), quote=False))


#: What stands for a character in LaTeX. A bracket or a star would be read as an argument of the ``\\`` before it.
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "−": r"$-$",
    "<": r"$<$",
    ">": r"$>$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\to$",
    "–": "--",
    "—": "---",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
#: The accent of LaTeX for a combining mark.
_ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327", "`'^~=u.\"rHvc", strict=True)
)


def escape_latex(text: str) -> str:
    """Escape a text for LaTeX as ASCII, which every engine and font encoding reads."""
    return "".join(map(_in_latex, one_line(text)))


def _in_latex(character: str) -> str:
    known = _LATEX.get(character)
    if known is not None:
        return known
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFD", character)
    letter, marks = parts[0], parts[1:]
    if letter.isascii() and marks in _ACCENTS:
        return f"\\{_ACCENTS[marks]}{{{letter}}}"
    return "".join(_LATEX.get(part, part) for part in plain(character))


def latex_label(*parts: str) -> str:
    r"""Return the key of a table for ``\\ref``, of letters, digits and hyphens."""
    words = re.findall(r"[a-z0-9]+", "-".join(parts).lower())
    return "tab:" + "-".join(words)
