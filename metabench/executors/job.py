"""A training with its tests as a job: run it here or in a worker, and make the records of its cells."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, TypeVar

import torch

from metabench.analysis.metrics import OF_TASK
from metabench.contracts import Attempt, Problem, Resources
from metabench.data.packing import DataRoots
from metabench.engine.learner import Learner, make_learner
from metabench.engine.outcome import Outcome
from metabench.engine.progress import Interrupted, Judge, Pruned, Watcher
from metabench.errors import CellFailed, StoreError, Unfit, in_one_line
from metabench.executors.agreement import Planned
from metabench.executors.loading import LoadedDataset, load_dataset
from metabench.executors.origin import Code, code_of, machine_of, planned_code, training_origin
from metabench.executors.record_data import data_of
from metabench.machine.device import choose_device
from metabench.machine.environment import circumstances, described, gpu_uuid, load
from metabench.planning.cells import Cell, Selection, Training
from metabench.planning.identity import IDENTITY_VERSION
from metabench.records.machines import Circumstances, Machine
from metabench.records.record import Data, EpisodeResults, Record
from metabench.records.store import Store
from metabench.records.values import Status
from metabench.registry.manager import PluginManager
from metabench.text import one_line

#: Seconds after a signal in which a worker learns that the run is to stop.
_STOP_DELAY = 0.3

_T = TypeVar("_T")


def _is_asked_to_stop(watcher: Watcher) -> bool:
    """Return whether the run is to stop; wait until the main process has had the time to say so."""
    deadline = time.monotonic() + _STOP_DELAY
    while not watcher.should_stop() and time.monotonic() < deadline:
        time.sleep(_STOP_DELAY / 10)
    return watcher.should_stop()


@dataclass(frozen=True)
class TrainingJob:
    """A training with its tests, run in this process or in a worker (`metabench.executors.processes.Job`).

    Attributes:
        training: the training.
        cells: the cells to test; none if only the weights are needed.
        selections: the validation episodes by which the training selects weights.
        suite: the suite's name.
        suite_version: the suite's version; None where it states none.
        licences: licences of the data by label of a dataset; empty where they are not known.
        profile: the profile's name.
        device: the device that it runs on.
        machine: the machine, with the share of it that the job has.
        environment: the versions, for the records.
        store: the output directory.
        needs: what it needs: whether a GPU, and its limits of time.
        executor: name of the executor, for the records.
        planned: software and data of the driver, where the worker may have others; None where it has the same.
        earlier: results of the first episodes of cells that grow, by cell.
        reselect: whether to train again where the kept weights lack a selection.
        datasets: the loaded datasets, by label, and
        plugins: the provider of the classes, to run in this process; a worker loads its own.
    """

    training: Training
    cells: Sequence[Cell]
    selections: Sequence[Selection]
    suite: str
    profile: str
    device: torch.device
    machine: Machine
    environment: Mapping[str, Any]
    store: Store
    needs: Resources = field(default_factory=Resources)
    executor: str = ""
    planned: Planned | None = None
    earlier: Mapping[str, EpisodeResults] = field(default_factory=dict)
    reselect: bool = False
    suite_version: int | None = None
    licences: Mapping[str, str] = field(default_factory=dict)
    datasets: Mapping[str, LoadedDataset] | None = None
    plugins: PluginManager | None = None

    @property
    def key(self) -> str:
        """Return the id of the training."""
        return self.training.id

    @property
    def after(self) -> list[str]:
        """Return the ids of trainings that must be finished before."""
        return [training.id for training in self.training.needs]

    @property
    def title(self) -> str:
        """Return a one-line description for people."""
        return f"training of {self.training.title}"

    def with_cells(self, cells: Sequence[Cell]) -> TrainingJob:
        """See `metabench.contracts.Job`."""
        return replace(self, cells=cells)

    def run(self, watcher: Watcher) -> Iterator[Attempt | Problem | None]:
        """Train, and yield the attempt of each cell; without cells, yield the problem of the training or None.

        An error of the training fails all cells, an error of a test its cell; `Unfit` skips them.

        Raises:
            Interrupted: the watcher asked for it.
            StoreError: a checkpoint, weights or results cannot be written or read.
        """
        load_start = load()
        plugins, datasets = self.loaded()
        # First of all, because a class in a file may be edited while the cells run.
        codes = {cell.id: code_of(cell, plugins) for cell in self.cells}
        here = self if self.datasets is not None else self._here()
        yield from here._attempts(watcher, plugins, datasets, codes, load_start)

    def _here(self) -> TrainingJob:
        """Return the job with the device and the machine that this worker sees."""
        device = choose_device(self.device.type)
        seen = {**self.environment, **described(device)}
        return replace(self, device=device, machine=machine_of(device, self.machine.cells_at_once), environment=seen)

    def _attempts(
        self,
        watcher: Watcher,
        plugins: PluginManager,
        datasets: Mapping[str, LoadedDataset],
        codes: Mapping[str, Code],
        load_start: float | None,
    ) -> Iterator[Attempt | Problem | None]:
        """Do the work of `run`, with what it has loaded."""
        name = self.cells[0].id if self.cells else self.key
        learner: Learner | Problem | None = self._disagreement(plugins, datasets)
        if learner is None:
            learner = self.tried(lambda: self.learner(plugins, datasets, watcher), watcher, name)
        if not self.cells:
            yield learner if isinstance(learner, Problem) else None
        for cell in self.cells:
            tried = learner if isinstance(learner, Problem) else self._tested(learner, cell, watcher)
            if isinstance(tried, Problem):
                problem, status = tried.problem, tried.status
                record = self.record(
                    cell, codes[cell.id], datasets, problem=problem, status=status, load_start=load_start
                )
                yield Attempt(record, traceback=tried.traceback)
            else:
                record = self.record(cell, codes[cell.id], datasets, outcome=tried, load_start=load_start)
                yield Attempt(record, tried.episodes, tried.picture)

    def learner(
        self,
        plugins: PluginManager,
        datasets: Mapping[str, LoadedDataset],
        watcher: Watcher,
        judge: Judge | None = None,
    ) -> Learner:
        """Train, or take the weights that are kept; arguments and errors as of `make_learner`."""
        trained_on = datasets[self.training.dataset.label].fingerprint
        return make_learner(
            self.training,
            self.selections,
            datasets,
            self.device,
            plugins,
            self.store.path,
            watcher,
            training_origin(self.training, trained_on, self.device, plugins),
            self.cells[0].test.batch if self.cells else None,
            self.reselect,
            judge,
        )

    def _disagreement(self, plugins: PluginManager, datasets: Mapping[str, LoadedDataset]) -> Problem | None:
        """Return why the results of this worker would not be those that were planned; None if they are."""
        if self.planned is None:
            return None
        data = {label: dataset.fingerprint for label, dataset in datasets.items()}
        here = Planned(code=planned_code(self.training, self.cells, plugins), data=data)
        reason = self.planned.disagreement(here)
        return Problem(reason) if reason else None

    def loaded(self) -> tuple[PluginManager, Mapping[str, LoadedDataset]]:
        """Return the plugins, and the datasets of the training, its selections and its cells by label."""
        plugins = self.plugins or PluginManager.from_environment()
        return plugins, self._loaded(plugins) if self.datasets is None else self.datasets

    def _loaded(self, plugins: PluginManager) -> dict[str, LoadedDataset]:
        device = choose_device(self.device.type)  # that which this worker sees
        roots = DataRoots.from_environment(os.environ)
        used = (self.training.dataset, *(cell.dataset for cell in self.cells), *(s.on for s in self.selections if s.on))
        choices = {choice.label: choice for choice in used}
        return {
            label: load_dataset(choice, plugins, roots, device, lambda done, total, name: None)
            for label, choice in choices.items()
        }

    def _tested(self, learner: Learner, cell: Cell, watcher: Watcher) -> Outcome | Problem:
        return self.tried(lambda: learner.test(cell, watcher, self.earlier.get(cell.id)), watcher, cell.id)

    def tried(self, work: Callable[[], _T], watcher: Watcher, name: str) -> _T | Problem:
        """Return the result of some work, or why there is none.

        Args:
            work: the work.
            watcher: may have asked to stop.
            name: the cell or training that a traceback is named after.

        Raises:
            Interrupted: the watcher asked for it.
            Pruned: a judge ended the training.
            StoreError: files cannot be written or read.
        """
        try:
            return work()
        except (StoreError, Interrupted, Pruned):
            raise
        except CellFailed as error:
            return Problem(str(error))
        except Unfit as error:
            return Problem(str(error), "skipped")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, e.g. SystemExit; the other cells must go on
            # The signal that stops the run may have ended processes that the plugin has started.
            if _is_asked_to_stop(watcher):
                raise Interrupted from error
            reason = f"{in_one_line(error)} (see {self.store.traceback_name(name)})"
            return Problem(reason, traceback=traceback.format_exc())

    def record(
        self,
        cell: Cell,
        code: Code,
        datasets: Mapping[str, LoadedDataset] | None = None,
        fingerprint: str = "",
        outcome: Outcome | None = None,
        problem: str | None = None,
        status: Status = "failed",
        load_start: float | None = None,
    ) -> Record:
        """Return the record of a cell: the outcome, or the problem.

        Args:
            cell: the cell.
            code: the code of its classes.
            datasets: the datasets of the job by label, where this process has loaded them.
            fingerprint: fingerprint of its dataset, where this process has not; empty if that was not loaded.
            outcome: the outcome; None if the cell failed or was skipped.
            problem: the reason.
            status: the status of a cell without an outcome.
            load_start: the load of the computer when the job began; None where it did not.
        """
        if datasets is not None:
            fingerprint = datasets[cell.dataset.label].fingerprint
        return Record(
            cell=cell.id,
            suite=self.suite,
            suite_version=self.suite_version,
            profile=self.profile,
            algorithm=cell.algorithm.label,
            dataset=cell.dataset.label,
            backbone=cell.backbone.label,
            way=cell.shape.way,
            shot=cell.shape.shot,
            queries=cell.shape.queries,
            episodes_file=cell.test.file.path.name if cell.test.file else "",
            seed=cell.seed,
            identity=cell.identity,
            status="ok" if outcome else status,
            error=problem,
            task=cell.test.task,
            floor=cell.floor,
            every_seed=cell.every_seed,
            confirms=cell.confirms,
            trials=cell.trials,
            chance=outcome.chance if outcome else None,
            ranked_by=outcome.ranked_by if outcome else OF_TASK[cell.test.task][0].name,
            metrics=outcome.metrics if outcome else {},
            declarations=outcome.declarations if outcome else {},
            temperature=outcome.temperature if outcome else None,
            inductive_accuracy=outcome.inductive_accuracy if outcome else None,
            transductive=outcome.transductive if outcome else None,
            worst_classes=outcome.worst_classes if outcome else [],
            remarks=outcome.remarks if outcome else [],
            train=outcome.train if outcome else None,
            weights=outcome.weights if outcome else None,
            eval=outcome.eval if outcome else None,
            costs=dict(outcome.costs) if outcome else {},
            flops_per_episode=outcome.flops_per_episode if outcome else None,
            peak_memory_bytes=outcome.peak_memory_bytes if outcome else None,
            parameters=outcome.parameters if outcome else None,
            all_parameters=outcome.all_parameters if outcome else None,
            device=str(self.machine),
            machine=self.machine,
            circumstances=Circumstances(
                **circumstances(),
                executor=self.executor,
                gpu=gpu_uuid(self.device),
                load_start=load_start,
                load_end=load(),
            ),
            dataset_fingerprint=fingerprint,
            trained_on=cell.training.dataset.label if cell.is_cross_domain else "",
            pretrained_on=outcome.pretrained_on if outcome else "",
            data=self._data(cell, datasets, outcome) if datasets is not None else None,
            environment={
                **self.environment,
                "providers": dict(code.providers),
                "code": dict(code.hashes),
                "identity": IDENTITY_VERSION,
            },
            finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def _data(self, cell: Cell, datasets: Mapping[str, LoadedDataset], outcome: Outcome | None) -> Data:
        data = data_of(cell, datasets, outcome)
        return data.model_copy(update={"licence": one_line(self.licences.get(cell.dataset.label, ""))})
