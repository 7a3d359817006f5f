"""Build the pages of a site: its first page, one for each task, one on submitting, and the report of each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metabench import __version__
from metabench.analysis.standings import make_tables
from metabench.analysis.tables import Row, Table
from metabench.records.runs import Runs
from metabench.reporting.figures import shown
from metabench.reporting.report.drawing import Styles
from metabench.reporting.report.page import method_names, render_page
from metabench.reporting.report.styles import Style, styles_of
from metabench.reporting.site.entries import Entry, licences_of, run_line, suites_of, version_of
from metabench.reporting.site.tasks import Task, tasks_of, view_of
from metabench.reporting.templates import asset, render
from metabench.specs import PublishedResult
from metabench.text import counted


def render_site(
    entries: Mapping[Path, Entry], runs: Runs, published: Sequence[PublishedResult] = (), submit: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield address and text of each page; equal runs give equal pages.

    Args:
        entries: the runs by their directories.
        runs: the records of all of them.
        published: published results to show beside them.
        submit: address at which results are submitted; empty for none.
    """
    tables = make_tables(runs.records, runs, published)
    names = [_label(row) for table in tables for row in table.rows]
    for entry in entries.values():
        names += method_names(make_tables(entry.runs.records, entry.runs))
    styles = styles_of(names)
    tasks = tasks_of(tables)
    yield "index.html", _first_page(tasks, entries, runs, styles)
    for task in tasks:
        yield task.address, _page("task", task.title, "../", task=view_of(task, runs, entries, styles))
    yield "submit.html", _page("submit", "How to submit results", submit=submit)
    for entry in entries.values():
        yield entry.address, render_page(entry.runs, published, names=names, home="../index.html")


@dataclass(frozen=True)
class _Best:
    """The best method of a table, or None, its result and how many tie with it."""

    task: Task
    table: Table
    method: str = ""
    style: Style | None = None
    result: str = ""
    ties: int = 0


def _first_page(tasks: Sequence[Task], entries: Mapping[Path, Entry], runs: Runs, styles: Styles) -> str:
    tables = sum(len(task.tables) for task in tasks)
    size = f"{counted(len(runs.records), 'cell')} of {counted(len(entries), 'run')} in {counted(tables, 'table')}"
    return _page(
        "index",
        "Results",
        summary=f"{size}, by metabench {__version__}.",
        best=[_best(task, table, styles) for task in tasks for table in task.tables],
        runs=[run_line(entry) for entry in entries.values()],
        suites=[
            (suite, sorted({version_of(record) for entry in members for record in entry.runs.records}), members)
            for suite, members in suites_of(entries.values()).items()
        ],
        licences=licences_of(runs.records),
    )


def _best(task: Task, table: Table, styles: Styles) -> _Best:
    best = next((row for row in table.rows if row.rank == 1 and not row.tie), None)
    if best is None or best.primary is None:
        return _Best(task, table)
    result = (
        f"{best.metric.title} {shown(best.metric, best.primary.mean, best.primary.ci95)} {best.metric.unit}".strip()
    )
    return _Best(task, table, best.name, styles[_label(best)], result, sum(row.tie for row in table.rows))


def _label(row: Row) -> str:
    """Return the label of a row's algorithm, which has one colour on all pages."""
    return row.records[0].algorithm


def _page(name: str, title: str, root: str = "", **values: Any) -> str:
    """Return a page.

    Args:
        name: name of its template.
        title: its title.
        root: where the first page is, seen from this one: empty, or a relative folder.
        values: further values of the template.
    """
    css = asset("report/page.css") + asset("site/site.css")
    return render(
        f"site/{name}.html", name=name, title=title, root=root, css=css, js=asset("report/tables.js"), **values
    )
