"""What all plots of the report share; Bokeh draws them in the browser."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bokeh.document import Document
from bokeh.models import HoverTool
from bokeh.plotting import figure
from bokeh.resources import INLINE

from metabench.analysis.stats import Floats
from metabench.records.measured import Declaration
from metabench.reporting.report.styles import Style

#: Number of best methods of a table that are plotted, compared pairwise and shown with their worst episode.
METHODS = 12
#: Lines that belong to no method; visible on the light and the dark page.
GREY = "#84848e"
#: Letters of a method's name on an axis.
_LETTERS = 26

Styles = Mapping[str, Style]


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        caption: what it shows, with its intervals.
        description: its content in words, for those who do not see it.
        figure: the plot itself.
    """

    caption: str
    description: str
    figure: figure


@dataclass(frozen=True)
class Drawn:
    """A plot as HTML, to be filled by the script of `embed`."""

    caption: str
    description: str
    html: str


def embed(groups: Sequence[Sequence[Plot]]) -> tuple[dict[str, Any], list[list[Drawn]]]:
    """Return what `page.js` draws all plots from, Bokeh's library included, and the HTML of each group's plots.

    Equal plots give equal results, in every process: Bokeh's own embedding names them by random numbers. Without plots,
    there is nothing to draw from.
    """
    plots = [plot for group in groups for plot in group]
    if not plots:
        return {}, [[] for _ in groups]
    document = Document()
    with document.models.freeze():  # otherwise Bokeh searches all models again for each plot
        for plot in plots:
            document.add_root(plot.figure)
    content, numbers = _numbered(document)
    roots = {numbers[plot.figure.id]: f"plot{place}" for place, plot in enumerate(plots)}
    drawn = iter(
        Drawn(plot.caption, plot.description, f'<div class="plot" id="{element}" data-root-id="{root}"></div>')
        for plot, (root, element) in zip(plots, roots.items(), strict=True)
    )
    library = INLINE.js_raw[0]
    return {"library": library, "plots": content, "roots": roots}, [[next(drawn) for _ in group] for group in groups]


def _numbered(document: Document) -> tuple[Any, dict[str, str]]:
    """Return a document as plain data, its models numbered in the order in which it names them, and the numbers.

    Only models have a key ``id`` there: Bokeh writes mappings of other data as lists of pairs.
    """
    numbers: dict[str, str] = {}

    def numbered(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {
                name: numbers.setdefault(value, f"m{len(numbers)}") if name == "id" else numbered(value)
                for name, value in part.items()
            }
        return [numbered(inner) for inner in part] if isinstance(part, (list, tuple)) else part

    return numbered(document.to_json(deferred=False)), numbers


def empty_figure(x: str, y: str, x_axis_type: Literal["linear", "log"] = "linear", height: int = 320) -> figure:
    """Return a plot without legend: the methods are listed beside the plots of a section."""
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        x_axis_label=x,
        y_axis_label=y,
        x_axis_type=x_axis_type,
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_drag=None,  # a finger that moves over a plot scrolls the page
        active_scroll=None,
        background_fill_color=None,
        border_fill_color=None,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    return plot


def add_points(
    plot: figure,
    name: str,
    style: Style,
    x: Sequence[float],
    y: Sequence[float],
    half: Sequence[float] = (),
    size: int = 9,
) -> None:
    """Draw a method's points, with half their intervals."""
    if half:
        low = [value - part for value, part in zip(y, half, strict=True)]
        high = [value + part for value, part in zip(y, half, strict=True)]
        plot.segment(list(x), low, list(x), high, color=style.colour, name=name)
    plot.scatter(
        list(x),
        list(y),
        size=size,
        line_color=style.colour,
        fill_color=style.colour,
        fill_alpha=style.fill,
        marker=style.marker,
        name=name,
    )


def add_line(
    plot: figure, name: str, style: Style, x: Sequence[float] | Floats, y: Sequence[float] | Floats, width: float = 2
) -> None:
    """Draw a method's line with its colour and dashes."""
    plot.line(list(x), list(y), color=style.colour, line_dash=style.dash, line_width=width, name=name)


def add_hover(plot: figure, x: str, y: str, x_format: str = "") -> None:
    """Show method and coordinates beside the pointer."""
    plot.add_tools(HoverTool(tooltips=[("method", "$name"), (x, f"$x{x_format}"), (y, "$y")]))


def capital(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def short_name(name: str) -> str:
    """Return a name that fits beside an axis.

    Of a long label of a grid, the names of the parameters are left out, and the values stay: ``maml[0.1,5]``. Then the
    middle is left out.
    """
    if len(name) > _LETTERS and (grid := re.fullmatch(r"([^\[]*)\[(.*)\]", name)):
        values = re.sub(r"[\w.]+=", "", grid[2])
        head = max(6, _LETTERS - len(values) - 2)
        name = f"{grid[1] if len(grid[1]) <= head else grid[1][: head - 1] + '…'}[{values}]"
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS // 2 - 1]}…{name[-(_LETTERS // 2) :]}"


def said(metric: Declaration, value: float) -> str:
    """Return a value of a metric as words, e.g. ``"81.2 %"``."""
    return f"{value * metric.scale:.4g} {metric.unit}".rstrip()
