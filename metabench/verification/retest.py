"""Test the kept weights of a cell again, as the work of a worker."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from metabench.data.packing import DataRoots
from metabench.engine.learner import finished_learner
from metabench.engine.progress import Interrupted, Watcher, as_phases
from metabench.errors import CellFailed, MetabenchError, Unfit, in_one_line
from metabench.executors.job import TrainingJob
from metabench.executors.loading import LoadedDataset, load_dataset
from metabench.executors.origin import Code, code_of, harness_hash, machine_of
from metabench.machine.device import choose_device, in_threads
from metabench.machine.environment import environment
from metabench.planning.cells import Cell
from metabench.planning.fitting import datasets_of
from metabench.records.machines import Machine
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager
from metabench.verification.comparison import differences, not_computed
from metabench.verification.verdicts import CellVerdict, Verdict


@dataclass(frozen=True)
class Retest:
    """A second test of a cell (`metabench.executors.processes.Job`); it writes nothing.

    Attributes:
        directory: the output directory of the run.
        cell: the cell, as the suite of the run plans it.
        record: its record.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for that of the record, where it is here.
    """

    directory: Path
    cell: Cell
    record: Record
    device: str

    def run(self, watcher: Watcher) -> Iterator[CellVerdict]:
        """Load data and weights, test as many episodes as the record has, and yield the verdict.

        Raises:
            DataError: raw data are missing or damaged.
            Interrupted: the watcher asked to stop.
        """
        kind = self.record.machine.kind
        wanted = "cpu" if kind == "cuda" and not torch.cuda.is_available() else kind
        device, plugins = (
            choose_device(wanted if self.device == "auto" else self.device),
            PluginManager.from_environment(),
        )
        threads = min(self.record.machine.threads or torch.get_num_threads(), os.cpu_count() or 1)
        with in_threads(max(1, threads)):
            yield self._verdict(device, plugins, watcher)

    def _verdict(self, device: torch.device, plugins: PluginManager, watcher: Watcher) -> CellVerdict:
        roots = DataRoots.from_environment(os.environ)
        datasets = {
            label: load_dataset(choice, plugins, roots, device, as_phases(watcher))
            for label, choice in datasets_of([self.cell]).items()
        }
        if other := self._other_data(datasets):
            return self._found("other data", other)
        code = code_of(self.cell, plugins)
        other_code, elsewhere = self._other_code(code), self._elsewhere(device)
        notes = [*other_code, *elsewhere]
        try:
            again, repeated = self._tested(device, plugins, datasets, code, watcher)
        except Interrupted:
            raise
        except (CellFailed, Unfit, MetabenchError) as error:
            return self._found("undecided", [f"its test fails here: {error}"], notes)
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            return self._found("undecided", [f"its test fails here: {in_one_line(error)}"], notes)
        stored = Store(self.directory).episodes(self.record, by_label=True)
        # Only where outputs are kept can `metabench score` have computed metrics.
        kept = Store(self.directory).outputs(self.record.cell) is not None
        scored = [name for name in stored.figures if kept and name != self.record.ranked_by]
        found = differences(self.record, again, stored, repeated, not elsewhere, scored)
        if missing := not_computed(self.record, again):
            notes.append(f"not computed here: {', '.join(missing)}")
        if found:
            return self._found("undecided" if other_code else "differs", found, notes)
        same = all(
            np.array_equal(values, repeated.figures.get(name, values)) for name, values in stored.figures.items()
        )
        if not same and not elsewhere:
            notes.append(
                "metrics beside the one that ranks agree within rounding only, as those of `metabench score` do"
            )
        return self._found("exact" if same else "rounding", [], notes)

    def _found(self, verdict: Verdict, reasons: list[str], notes: list[str] | None = None) -> CellVerdict:
        return CellVerdict(self.record, verdict, True, tuple(reasons), tuple(notes or ()))

    def _tested(
        self,
        device: torch.device,
        plugins: PluginManager,
        datasets: Mapping[str, LoadedDataset],
        code: Code,
        watcher: Watcher,
    ) -> tuple[Record, EpisodeResults]:
        """Return record and per-episode results of a second test of the kept weights."""
        primary, alone = self.record.primary, self.record.inductive_accuracy
        assert primary is not None, "only a cell with results is tested again"
        # A test that has grown, or was cut by an interval, is repeated as long as it is; its own time is over.
        test = replace(self.cell.test, episodes=primary.episodes, until_ci95=None, time_limit=None)
        if self.record.transductive and alone is not None:
            test = replace(test, inductive_episodes=alone.episodes)
        cell, training = replace(self.cell, test=test), self.cell.training
        # Without an origin, features are computed anew and not kept.
        learner = finished_learner(training, datasets, device, plugins, self.directory, watcher, {})
        outcome = learner.test(cell, watcher)
        job = TrainingJob(
            training,
            [cell],
            [],
            self.record.suite,
            self.record.profile,
            device,
            machine_of(device, 1),
            {},
            Store(self.directory),
        )
        return job.record(cell, code, datasets, outcome=outcome), outcome.episodes

    def _other_data(self, datasets: Mapping[str, LoadedDataset]) -> list[str]:
        """Return which data are not those of the record."""
        said = {self.cell.dataset.label: self.record.dataset_fingerprint}
        if self.cell.is_cross_domain and self.record.data:
            said[self.cell.training.dataset.label] = self.record.data.trained_on
        return [
            f"the images of {label} have the fingerprint {datasets[label].fingerprint[:12]}… here, and "
            f"{fingerprint[:12]}… in the record"
            for label, fingerprint in said.items()
            if fingerprint != datasets[label].fingerprint
        ]

    def _other_code(self, code: Code) -> list[str]:
        """Return which code is not that of the record."""
        then = self.record.environment
        now = {**code.hashes, "harness": harness_hash()}
        said = {**then.get("code", {}), "harness": then.get("harness")}
        lines = []
        for role, digest in now.items():
            name = role.replace("_", " ")
            if said.get(role) is None:
                lines.append(f"the record has no hash of the code: {name}")
            elif said[role] != digest:
                lines.append(f"other code of the {name}: hash {digest} here, {said[role]} in the record")
        return lines

    def _elsewhere(self, device: torch.device) -> list[str]:
        """Return in what this machine is of another kind than that of the record."""
        here, then = machine_of(device, 1), self.record.machine
        now = environment(device)
        pairs = {
            "machine": (_name(here), _name(then)),
            **{name: (now[name], self.record.environment.get(name)) for name in ("torch", "numpy", "cuda")},
        }
        return [f"{name}: {here} here, {said} in the record" for name, (here, said) in pairs.items() if here != said]


def _name(machine: Machine) -> str:
    return str(machine.model_copy(update={"cells_at_once": 1}))
