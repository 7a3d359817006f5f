"""Build the report; `page.html` lays out and escapes values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from metabench import __version__
from metabench.analysis.interpretation import Interpretation
from metabench.analysis.standings import make_tables
from metabench.analysis.tables import Table
from metabench.records.runs import Runs
from metabench.reporting import leaderboard
from metabench.reporting.remarks import devices, origins, remarks
from metabench.reporting.report.all_methods import all_methods
from metabench.reporting.report.drawing import Plot, Styles, embed
from metabench.reporting.report.environments import environments
from metabench.reporting.report.interpretations import interpreted, with_maps
from metabench.reporting.report.interval_plots import CAPTION, interval_plot
from metabench.reporting.report.packed import packed
from metabench.reporting.report.sections import Section, published_results, section_of
from metabench.reporting.report.styles import Style, styles_of
from metabench.reporting.report.table_plots import table_plots
from metabench.reporting.report.trend_plots import shape_plots, trend_names
from metabench.reporting.report.without_results import cells_without_results, remarks_on_unfinished
from metabench.reporting.templates import asset, render
from metabench.specs import PublishedResult
from metabench.text import counted, visible_lines

#: Number of tables with plots, paired differences and pictures; the other tables are listed among all methods only.
SECTIONS = 4
#: Number of tables whose methods are plotted with their intervals.
_INTERVALS = 12


def render_page(
    runs: Runs,
    published: Sequence[PublishedResult] = (),
    interpretations: Sequence[Interpretation] = (),
    names: Iterable[str] = (),
    home: str = "",
) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        runs: the records to show.
        published: published results to show beside them.
        interpretations: episodes as the methods see them.
        names: further names of methods: pages that are given the same ones agree in all colours.
        home: address of the first page of a site, which it links; empty for none.
    """
    tables = make_tables(runs.records, runs, published)
    with_results = [table for table in tables if any(row.primary for row in table.rows)]
    detailed = with_results[:SECTIONS]
    styles = styles_of([*method_names(tables), *names])
    overview = [plot for table in with_results[:_INTERVALS] if (plot := interval_plot(table, styles))]
    shown = [interpreted(interpretation) for interpretation in interpretations]
    plots: list[list[Plot]] = [
        overview,
        shape_plots(tables, styles),
        *(table_plots(table, runs, styles) for table in detailed),
        *([one.map] for one in shown),
    ]
    drawing, drawn = embed(plots)
    sections = [
        section_of(table, plots_of, runs, styles)
        for table, plots_of in zip(detailed, drawn[2 : 2 + len(detailed)], strict=True)
    ]
    columns = leaderboard.shown_columns(tables)
    more = f" Plots and details of the first {SECTIONS} of {len(tables)} tables." if len(tables) > SECTIONS else ""
    records = runs.records
    size = f"{counted(len(records), 'cell')} in {counted(len(tables), 'table')}"
    return render(
        "report/page.html",
        title=", ".join(dict.fromkeys(record.suite for record in records)),
        summary=f"{size}, by metabench {__version__}.{more}",
        home=home,
        css=asset("report/page.css"),
        js=asset("report/tables.js") + asset("report/page.js"),
        packed=packed({**drawing, "classes": _class_rows(sections)}),
        table=all_methods(tables, columns, styles),
        notes=[*leaderboard.legend(columns), *devices(tables), *origins(tables)],
        remarks=[(table.title, lines) for table in tables if (lines := table_remarks(table))],
        missing=cells_without_results(tables, runs),
        unfinished=remarks_on_unfinished(runs),
        sources=published_results(tables),
        overview=drawn[0],
        overview_caption=CAPTION,
        trends=drawn[1],
        trend_methods=_plotted(plots[1], styles),
        sections=sections,
        interpretations=with_maps(shown, drawn[2 + len(detailed) :]),
        environments=environments(records),
        suites=[{"name": name, "text": visible_lines(text)} for name, text in runs.suites().items()],
    )


def method_names(tables: Sequence[Table]) -> list[str]:
    """Return the names of methods that a report on some tables shows."""
    return [*(row.name for table in tables for row in table.rows), *trend_names(tables)]


def table_remarks(table: Table) -> list[str]:
    """Return the accuracy of guessing, and the remarks of the leaderboard."""
    chance = [] if table.chance is None else [f"chance: {100 * table.chance:.2f} %"]
    return [*chance, *remarks(table, failures=False)]


def _plotted(plots: Sequence[Plot], styles: Styles) -> dict[str, Style]:
    """Return the styles of the methods in some plots."""
    names = dict.fromkeys(renderer.name for plot in plots for renderer in plot.figure.renderers)
    return {name: styles[name] for name in names if name and name in styles}


def _class_rows(sections: Sequence[Section]) -> list[Any]:
    """Return the rows of the tables of all classes, which the page fills in when they are opened."""
    return [section.classes.rows if section.classes else [] for section in sections]
