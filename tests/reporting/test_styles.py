from __future__ import annotations

import pytest

from metabench.reporting.report.styles import Style, styles_of

#: The papers of the light and the dark page, and of their tables' headings.
PAPERS = ("#ffffff", "#16161a", "#f3f3f6", "#22222a")
METHODS = [f"method {number}" for number in range(200)]


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_methods_have_other_colours_and_markers_as_long_as_there_are_some() -> None:
    styles = styles_of(METHODS[:16])
    assert len({style.colour for style in styles.values()}) == 16
    assert len({style.marker for style in styles.values()}) == 16
    assert len({style.character for style in styles.values()}) == 16


def test_no_two_of_many_methods_look_alike() -> None:
    styles = styles_of(METHODS)
    assert len({(style.colour, style.marker) for style in styles.values()}) == len(METHODS)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_colour_can_be_seen_on_the_light_and_the_dark_page(paper: str) -> None:
    for style in styles_of(METHODS).values():
        assert contrast(style.colour, paper) >= 3, style


def test_the_style_of_a_method_depends_on_no_order() -> None:
    names = METHODS[:30]
    assert styles_of(names) == styles_of(list(reversed(names)) + names)


def test_a_method_alone_and_among_others_has_its_colour_unless_one_before_it_has_taken_it() -> None:
    def alone(name: str) -> Style:
        return styles_of([name])[name]

    first, *rest = METHODS[:40]
    other = next(name for name in rest if alone(name).colour != alone(first).colour)
    assert styles_of([first, other]) == {first: alone(first), other: alone(other)}
    same = next(name for name in rest if alone(name).colour == alone(first).colour)
    both = styles_of([first, same])
    assert both[first] == alone(first)
    assert both[same].colour != both[first].colour
