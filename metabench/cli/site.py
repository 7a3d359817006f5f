"""`metabench site`: write a static site of many runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from metabench.cli.streams import say

#: Seconds before the progress appears, and between its lines.
_PATIENCE, _INTERVAL = 2.0, 5.0


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIRECTORY...")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("site"),
    show_default=True,
    help="Folder of the site: a new or empty one, or an earlier site, which is replaced.",
)
@click.option("--submit", default="", metavar="URL", help='Where results are submitted, for the page "How to submit".')
def site(directories: Sequence[Path], output: Path, submit: str) -> int:
    """Write a static site of the runs in DIRECTORIES, for any host of files.

    It has a page for each dataset, way and shot with all methods, and the report of each run. The exit code is 1 where
    the results of a cell are wrong; the other cells are shown.
    """
    from metabench.cli.leaderboard import name_invalid
    from metabench.errors import UsageError
    from metabench.records.runs import Runs
    from metabench.registry.manager import PluginManager
    from metabench.reporting.site.entries import read_entries
    from metabench.reporting.site.folder import check_folder, write_folder
    from metabench.reporting.site.pages import render_site

    if submit and not submit.startswith(("https://", "http://", "mailto:")):
        raise UsageError(f"--submit {submit} is no address: give one that begins with https://, http:// or mailto:")
    check_folder(output)
    published = PluginManager.from_environment().published_results()
    entries = read_entries(directories)
    runs = Runs.read(entries)
    pages = render_site(entries, runs, published, submit)
    count, size = write_folder(output, _counted(pages, len(entries)))
    say(f"Written to {output}: {count} pages, {size / 1e6:.1f} MB")
    return name_invalid(runs)


def _counted(pages: Iterator[tuple[str, str]], reports: int) -> Iterator[tuple[str, str]]:
    """Yield the pages; show the progress in reports, which take nearly all of the time."""
    from metabench.cli.progress import ProgressLine, terminal_bars

    with terminal_bars() as bars:
        line = ProgressLine("site", bars, _PATIENCE, _INTERVAL)
        line.phase("reports", reports)
        done = 0
        for address, text in pages:
            done += address.startswith("runs/")
            line.advance(done)
            yield address, text
        line.end()
