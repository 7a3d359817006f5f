"""Give each method one colour, marker and dash, whatever its rank."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

#: Sixteen colours. Each has a contrast of at least 3 to the light and the dark page (tests/reporting/test_styles.py):
#: a method keeps its colour when the scheme changes. In this order, the methods of the suite omniglot differ most.
_COLOURS = (
    *("#1f77c9", "#8a7a4a", "#6f7f8f", "#c2418f", "#a27700", "#7a6bd8", "#0d8a8f", "#d24b4b"),
    *("#5b8c0a", "#9a55c9", "#2f8fb8", "#b5573f", "#238551", "#d1640f", "#c0557a", "#4b79e0"),
)
#: Markers of Bokeh, and the characters of the same shapes for tables.
_MARKERS = (
    *(("circle", "●"), ("square", "■"), ("triangle", "▲"), ("diamond", "◆"), ("inverted_triangle", "▼")),
    *(("star", "★"), ("hex", "⬢"), ("circle_x", "⊗"), ("square_x", "⊠"), ("circle_cross", "⊕")),
    *(("square_cross", "⊞"), ("circle_dot", "⊙"), ("square_dot", "⊡"), ("plus", "✚"), ("x", "✖"), ("asterisk", "✱")),
)
#: Markers that are outlines: filled, their inner lines would vanish.
_OUTLINED = {"circle_x", "square_x", "circle_cross", "square_cross", "circle_dot", "square_dot"}
_DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot")
#: Shift of the markers each time all colours are in use: no two of the first 256 methods look alike.
_SHIFT = 5


@dataclass(frozen=True)
class Style:
    """The looks of a method.

    Attributes:
        colour: CSS colour.
        marker: name of the marker.
        character: the marker as a character, for tables.
        dash: pattern of its lines.
    """

    colour: str
    marker: str
    character: str
    dash: str

    @property
    def fill(self) -> float:
        """Return the opacity of the marker's inside."""
        return 0.0 if self.marker in _OUTLINED else 1.0


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """Return the style of each method.

    A hash of its name chooses the colour, so that a method has the same one on every page; where two names would share
    a colour, the second one in the order of the alphabet takes the next that is free. Several pages that are given the
    same names agree in all styles.
    """
    styles: dict[str, Style] = {}
    free: list[int] = []
    rounds = 0
    for name in sorted(set(names)):
        if not free:
            free, rounds = list(range(len(_COLOURS))), rounds + 1
        wanted = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:4], "big")
        place = next(slot for step in range(len(_COLOURS)) if (slot := (wanted + step) % len(_COLOURS)) in free)
        free.remove(place)
        marker, character = _MARKERS[(place + (rounds - 1) * _SHIFT) % len(_MARKERS)]
        styles[name] = Style(_COLOURS[place], marker, character, _DASHES[(place + rounds - 1) % len(_DASHES)])
    return styles
