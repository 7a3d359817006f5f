"""Plot each method's metric with its intervals: the first plot of the report."""

from __future__ import annotations

from collections.abc import Sequence

from bokeh.models import FixedTicker, HoverTool, PlainText, Range1d
from bokeh.plotting import ColumnDataSource

from metabench.analysis.tables import Row, Table
from metabench.reporting.report.drawing import Plot, Styles, capital, empty_figure, said, short_name

#: Most methods of a table.
_MOST = 40
#: Height of a method's row, and of axis and border, in pixels.
_ROW, _BORDER = 26, 76
#: The intervals: title, distance from the middle of the row, width and dash of the line.
_INTERVALS = (
    ("about the data", 0.24, 1.5, "solid"),
    ("over episodes", 0.0, 5.0, "solid"),
    ("between seeds", -0.24, 2.0, "dashed"),
    ("about the method", -0.36, 1.5, "dotted"),
)
CAPTION = (
    "95 % intervals: the thick line is over episodes, the thin one above it about the data (other classes and images), "
    "the dashed one below it between training seeds, the dotted one about the method (other seeds and episodes; from "
    "three seeds on)"
)


def interval_plot(table: Table, styles: Styles) -> Plot | None:
    """Return the plot of a table's methods, the best first; None where no method has a result."""
    every = [row for row in table.rows if row.primary]
    rows = every[:_MOST]
    if not rows:
        return None
    metric, count = rows[0].metric, len(rows)
    plot = empty_figure(metric.heading, "", height=_BORDER + _ROW * count)
    places = {row.name: count - 1 - place for place, row in enumerate(rows)}
    for title, distance, width, dash in _INTERVALS:
        halves = [(row, half) for row in rows if (half := _half(row, title)) is not None]
        plot.segment(
            [_mean(row) - half for row, half in halves],
            [places[row.name] + distance for row, _ in halves],
            [_mean(row) + half for row, half in halves],
            [places[row.name] + distance for row, _ in halves],
            line_color=[styles[row.name].colour for row, _ in halves],
            line_width=width,
            line_dash=dash,
        )
    source = ColumnDataSource(
        {
            "x": [_mean(row) for row in rows],
            "y": [places[row.name] for row in rows],
            "method": [row.name for row in rows],
            "words": [_words(row) for row in rows],
            "colour": [styles[row.name].colour for row in rows],
            "marker": [styles[row.name].marker for row in rows],
            "fill": [styles[row.name].fill for row in rows],
        }
    )
    points = plot.scatter(
        "x", "y", source=source, size=11, marker="marker", line_color="colour", fill_color="colour", fill_alpha="fill"
    )
    plot.y_range = Range1d(start=-0.6, end=count - 0.4)
    plot.yaxis.ticker = FixedTicker(ticks=list(range(count)))
    # Plain: a name that looks like TeX would fetch a library to typeset it.
    plot.yaxis.major_label_overrides = {place: PlainText(text=short_name(name)) for name, place in places.items()}
    plot.ygrid.visible = False
    plot.add_tools(HoverTool(renderers=[points], tooltips=[("method", "@method"), (metric.title, "@words")]))
    more = f", the best {count} of {len(every)} methods" if len(every) > count else ""
    return Plot(
        f"{capital(metric.title)}: {table.task}{more}",
        "; ".join(f"{row.name}: {_words(row)}" for row in rows),
        plot,
    )


def _mean(row: Row) -> float:
    assert row.primary is not None
    return row.primary.mean * row.metric.scale


def _half(row: Row, title: str) -> float | None:
    """Return half an interval, scaled."""
    assert row.primary is not None
    halves = {
        "over episodes": row.primary.ci95,
        "about the data": row.data_ci95,
        "between seeds": row.seed_ci95,
        "about the method": row.method_ci95,
    }
    half = halves[title]
    return None if half is None else half * row.metric.scale


def _words(row: Row) -> str:
    assert row.primary is not None
    halves: Sequence[str] = [
        f"± {half:.2g} {title}" for title, *_ in _INTERVALS if (half := _half(row, title)) is not None
    ]
    return f"{said(row.metric, row.primary.mean)} ({', '.join(halves)})"
