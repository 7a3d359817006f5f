"""Compute metrics of finished cells from their kept outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from metabench.analysis.declared import measures_of
from metabench.analysis.estimates import estimates
from metabench.analysis.metrics import (
    OUTPUTS_AT_ONCE,
    Collector,
    Measure,
    by_name,
    log_probabilities,
    remarks_on,
    without_remark_on,
)
from metabench.engine.progress import Interrupted, Watcher
from metabench.errors import StoreError, UsageError, nearest
from metabench.records.record import SCHEMA_VERSION, EpisodeResults, Outputs, Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager


@dataclass(frozen=True)
class Scored:
    """A cell with further metrics.

    Attributes:
        record: the new record.
        episodes: its per-episode results.
        metrics: names of the computed metrics.
        kept: number of episodes that they are computed from.
        problems: by name, why a metric could not be computed.
    """

    record: Record
    episodes: EpisodeResults
    metrics: Collection[str]
    kept: int
    problems: dict[str, str]


@dataclass(frozen=True)
class Scoring:
    """The computation of metrics for an output directory, as a job of a worker.

    Attributes:
        output: the output directory.
        names: the metrics; empty means all that a record lacks.
    """

    output: Path
    names: tuple[str, ...] = ()

    def run(self, watcher: Watcher) -> Iterator[list[Scored]]:
        """Load the plugins, and yield all cells that get metrics; nothing is written.

        Raises:
            UsageError: a name is unknown, or that of a metric that ranks.
            StoreError: there are no outputs, they cannot be read, or they are not those of their record.
            Interrupted: the watcher asked to stop.
        """
        store, plugins = Store(self.output), PluginManager.from_environment()
        records = [record for record in store.records() if record.status == "ok"]
        of_task = {task: measures_of(plugins, task) for task in {record.task: None for record in records}}
        self._check_names([measure for measures in of_task.values() for measure in measures], records)
        scored = []
        watcher.phase("score", len(records))
        found = False
        for done, record in enumerate(records, 1):
            outputs = store.outputs(record.cell)
            found = found or outputs is not None
            lacking = [measure for measure in of_task[record.task] if self._wants(measure.name, record)]
            if outputs is not None and lacking:
                scored.append(_score(record, store.episodes(record, by_label=True), outputs, lacking))
            watcher.advance(done)
            if watcher.should_stop():
                raise Interrupted
        if not found:
            raise StoreError(
                f"{self.output} has no kept outputs: set eval.keep_outputs in the suite, and run it again with --fresh"
            )
        yield scored

    def _wants(self, name: str, record: Record) -> bool:
        return name in self.names if self.names else record.metrics.get(name) is None

    def _check_names(self, measures: Iterable[Measure], records: Iterable[Record]) -> None:
        known = list(by_name(measures))
        ranking = {record.ranked_by for record in records}
        for name in self.names:
            if name not in known:
                raise UsageError(f"no metric '{name}'{nearest(name, known)}. Known: {', '.join(known)}")
            if name in ranking:
                raise UsageError(
                    f"'{name}' ranks the methods, from all episodes at full precision: to compute it again, run the "
                    "suite with --fresh"
                )


def _score(record: Record, episodes: EpisodeResults, outputs: Outputs, chosen: Sequence[Measure]) -> Scored:
    """Return the record with further metrics.

    Args:
        record: the record.
        episodes: its per-episode results.
        outputs: its kept outputs.
        chosen: the metrics to compute.

    Raises:
        StoreError: the outputs are not those of the record.
    """
    kept = len(outputs.values)
    if not np.array_equal(outputs.values, episodes.figures[record.metric_of_answers][:kept]):
        raise StoreError(
            f"the kept outputs of cell {record.cell} are not those of its record: run the suite again with --fresh"
        )
    collector = Collector(chosen, record.temperature.value if record.temperature else None)
    at_once = max(1, OUTPUTS_AT_ONCE // outputs.outputs[0].size)
    for first in range(0, kept, at_once):
        part = slice(first, first + at_once)
        kept_part = outputs.outputs[part]
        is_classified = record.task == "classification"
        read = log_probabilities(kept_part) if is_classified else kept_part.astype(np.float64)
        collector.add(read, outputs.targets[part])
    figures = collector.figures()
    names = [measure.name for measure in chosen]
    metrics = {**record.metrics, **estimates(figures, episodes.groups[:kept], chosen)}
    earlier = [left for remark in record.remarks if (left := without_remark_on(remark, names))]
    new = record.model_copy(
        update={
            "schema_version": SCHEMA_VERSION,
            "metrics": metrics,
            "declarations": {**record.declarations, **{measure.name: measure.declaration for measure in chosen}},
            "remarks": [*earlier, *remarks_on(collector.problems)],
        }
    )
    joined = {name: values for name, values in {**episodes.figures, **figures}.items() if metrics[name] is not None}
    return Scored(
        Record.model_validate(new.model_dump()),
        replace(episodes, figures=joined),
        names,
        kept,
        dict(collector.problems),
    )


def write_scores(store: Store, scored: Iterable[Scored]) -> None:
    """Write the new records with their per-episode results.

    Raises:
        StoreError: the directory cannot be written.
    """
    for one in scored:
        store.write_metrics(one.record, one.episodes)


def summary(scored: Collection[Scored]) -> list[str]:
    """Return a line for each metric: how many cells have it, from how many episodes."""
    lines = []
    for name in dict.fromkeys(name for one in scored for name in one.metrics):
        with_it = [one for one in scored if name in one.metrics and name not in one.problems]
        counts = sorted({(one.kept, _tested(one.record)) for one in with_it})
        episodes = "; ".join(
            f"{kept:,} test episodes" if kept == tested else f"the first {kept:,} of {tested:,} test episodes"
            for kept, tested in counts
        )
        asked = sum(name in one.metrics for one in scored)
        lines.append(f"{name}: {len(with_it)} of {asked} cells" + (f", from {episodes}" if episodes else ""))
        lines += [f"{name}: {one.record.algorithm}: {one.problems[name]}" for one in scored if name in one.problems]
    return lines


def _tested(record: Record) -> int:
    return record.primary.episodes if record.primary else 0
