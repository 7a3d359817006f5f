"""Whether the files of a run agree: records, per-episode results, kept outputs, weights and tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from metabench.analysis.estimates import estimate_of_mean, estimates
from metabench.analysis.metrics import Measure
from metabench.analysis.standings import make_tables
from metabench.analysis.stats import DataIntervals
from metabench.errors import StoreError, shown
from metabench.files import read_regular, sha256_of
from metabench.planning.cells import content_hash
from metabench.records.measured import Estimate
from metabench.records.record import EpisodeResults, Record
from metabench.records.runs import Runs
from metabench.records.store import Store
from metabench.records.trained import TrainingFiles
from metabench.records.values import ROUNDING
from metabench.registry.manager import PluginManager
from metabench.reporting.rendering import render_csv, render_markdown
from metabench.specs import Metric


def contradictions(store: Store, record: Record, measures: Mapping[str, Measure], hashed: bool) -> list[str]:
    """Return what the files of a cell contradict one another in, a sentence each.

    Estimates and intervals are computed again from the per-episode results. Costs, and what only another test can
    tell, are not compared.

    Args:
        store: the output directory.
        record: a record that is ok.
        measures: the metrics that can be computed here, by name.
        hashed: whether its id is the hash of its settings.
    """
    found = []
    if hashed and content_hash(record.identity) != record.cell:
        found.append(f"its settings (identity) are not those of its id {record.cell}")
    try:
        results = store.episodes(record, by_label=True)
        outputs = store.outputs(record.cell)
    except StoreError as error:
        return [*found, str(error)]
    again = estimates(results.figures, results.groups, list(_known(results, measures).values()))
    for name, estimate in again.items():
        recorded = record.metrics[name]
        if estimate is not None and recorded is not None:
            found += _unlike(f"metrics.{name}", recorded, estimate)
    alone = results.alone
    if alone is not None and record.inductive_accuracy is not None:
        estimate = estimate_of_mean(alone, DataIntervals(results.groups[: len(alone)]))
        found += _unlike("inductive_accuracy", record.inductive_accuracy, estimate)
    if outputs is not None:
        values = results.figures[record.metric_of_answers][: len(outputs.values)]
        if not np.array_equal(outputs.values, values):
            found.append(f"outputs/{record.cell}.npz has other values than cells/{record.cell}.npz")
    return found


def _known(results: EpisodeResults, measures: Mapping[str, Measure]) -> dict[str, Measure]:
    """Return the measures of the figures; without that of a plugin, an estimate is known for a mean only."""
    known = {}
    for name, figures in results.figures.items():
        if name in measures:
            known[name] = measures[name]
        elif figures.ndim == 1:
            known[name] = Measure(name, next(iter(measures.values())).declaration, Metric())
    return known


def _unlike(place: str, recorded: Estimate, computed: Estimate) -> Iterator[str]:
    for field, value in computed:
        said = getattr(recorded, field)
        both = said is not None and value is not None
        if (said != value) if not both else abs(said - value) > ROUNDING * max(1.0, abs(value)):
            yield f"{place}.{field} is {_number(said)} in the record, and {_number(value)} of the per-episode results"


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.10g}"


def weights_problem(directory: Path, record: Record) -> tuple[str, str]:
    """Return why the kept weights of a cell cannot be tested, and what is wrong with them; empty where they can.

    Returns:
        Two sentences, of which one at least is empty: weights that are missing are not wrong.
    """
    if record.weights is None:
        return "", ""
    path = TrainingFiles(directory, "").weights / record.weights.file
    if not os.path.exists(path):
        return f"its weights weights/{record.weights.file} are not kept", ""
    try:
        digest = sha256_of(path)
    except OSError as error:
        return f"its weights cannot be read: {error.strerror}", ""
    if digest != record.weights.sha256:
        return (
            "",
            f"weights/{path.name} has the sha256 {digest[:12]}…, and the record says {record.weights.sha256[:12]}…",
        )
    return "", ""


def table_contradictions(directory: Path, plugins: PluginManager) -> tuple[list[str], list[str]]:
    """Return the names of the tables of a run, and where they differ from those of its records.

    Nothing is compared where a record is invalid: it has no place in a table.
    """
    store = Store(directory)
    paths = [path for path in (directory / "leaderboard.md", directory / "leaderboard.csv") if os.path.exists(path)]
    if not paths:
        return [], []
    runs = Runs.read([directory])
    if runs.invalid:
        return [], []
    tables = make_tables(runs.records, runs, plugins.published_results())
    texts = {
        "leaderboard.md": store.headed("leaderboard.md", render_markdown(tables)),
        "leaderboard.csv": render_csv(tables),
    }
    found = []
    for path in paths:
        try:
            stored = read_regular(path).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"cannot read {path}: {error}") from error
        if line := _first_difference(stored, texts[path.name]):
            found.append(
                f"{path.name} is not the table of these records, {line}. If nobody has altered it, another version of "
                "metabench wrote it: `metabench run` writes it again"
            )
    return [path.name for path in paths], found


def _first_difference(stored: str, computed: str) -> str:
    """Return where two texts differ first; empty where they do not."""
    one, other = stored.splitlines(), computed.splitlines()
    for number in range(max(len(one), len(other))):
        a, b = (lines[number] if number < len(lines) else "" for lines in (one, other))
        if a != b or number >= min(len(one), len(other)):
            start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            part = slice(max(0, start - 20), start + 20)
            return f"line {number + 1}: '{shown(a[part])}' in the file, '{shown(b[part])}' of the records"
    return ""
