"""A training with its tests as a job: run it here or in a worker, and make the records of its cells."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar

import torch

from metabench.analysis.metrics import OF_TASK
from metabench.api import Split
from metabench.contracts import Attempt, Problem
from metabench.data.order import episodes_key
from metabench.data.packing import DataRoots
from metabench.data.pretraining import count_shared, remarks_on_pretraining
from metabench.engine.learner import Learner, make_learner
from metabench.engine.outcome import Outcome
from metabench.engine.progress import Interrupted, Judge, Pruned, Watcher
from metabench.engine.subsets import splits_of
from metabench.errors import CellFailed, StoreError, Unfit, in_one_line
from metabench.executors.loading import LoadedDataset, load_dataset
from metabench.executors.origin import Code, code_of, training_origin
from metabench.machine.device import choose_device
from metabench.machine.environment import circumstances, load
from metabench.planning.cells import Cell, Selection, Training
from metabench.planning.identity import IDENTITY_VERSION
from metabench.planning.plan import classes_left_out, episodes_by_split
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
        name = self.cells[0].id if self.cells else self.key
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

    def loaded(self) -> tuple[PluginManager, Mapping[str, LoadedDataset]]:
        """Return the plugins, and the datasets of the training, its selections and its cells by label."""
        plugins = self.plugins or PluginManager.from_environment()
        return plugins, self._loaded(plugins) if self.datasets is None else self.datasets

    def _loaded(self, plugins: PluginManager) -> dict[str, LoadedDataset]:
        choose_device(self.device.type)
        roots = DataRoots.from_environment(os.environ)
        used = (self.training.dataset, *(cell.dataset for cell in self.cells), *(s.on for s in self.selections if s.on))
        choices = {choice.label: choice for choice in used}
        return {
            label: load_dataset(choice, plugins, roots, self.device, lambda done, total, name: None)
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
            flops_per_episode=outcome.flops_per_episode if outcome else None,
            peak_memory_bytes=outcome.peak_memory_bytes if outcome else None,
            parameters=outcome.parameters if outcome else None,
            all_parameters=outcome.all_parameters if outcome else None,
            device=str(self.machine),
            machine=self.machine,
            circumstances=Circumstances(**circumstances(), load_start=load_start, load_end=load()),
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
        data = _data_of(cell, datasets, outcome)
        return data.model_copy(update={"licence": one_line(self.licences.get(cell.dataset.label, ""))})


def _data_of(cell: Cell, datasets: Mapping[str, LoadedDataset], outcome: Outcome | None) -> Data:
    """Return what a record says about the data of a cell."""
    data, trained_on = datasets[cell.dataset.label], datasets[cell.training.dataset.label]
    splits = {label: dataset.splits for label, dataset in datasets.items()}
    with suppress(CellFailed):  # a limit of more than there is, which has failed the cell
        splits[cell.training.dataset.label] = splits_of(cell.training, trained_on.splits)
    drawn = {
        name: (split, shape)
        for name, (choice, shape) in episodes_by_split(cell).items()
        if isinstance(split := splits[choice.label][name], Split)
    }
    left_out = {name: classes_left_out(split, shape) for name, (split, shape) in drawn.items()}
    left_out = {name: count for name, count in left_out.items() if count}
    return Data(
        episodes=episodes_key(data.splits["test"], "test", cell.shape, cell.test.seed, data.test_content),
        raw_files=data.raw_files,
        overlapping=data.findings.overlapping,
        duplicates=dict(data.findings.duplicates),
        left_out=left_out,
        trained_on=trained_on.fingerprint if cell.is_cross_domain else "",
        remarks=[
            *data.remarks,
            *data.findings.remarks(),
            *_seen_before(cell, datasets, outcome),
            *(
                f"{count} of {drawn[name][0].size.classes} classes of {name} have fewer than "
                f"{drawn[name][1].per_class} images, and are not drawn"
                for name, count in left_out.items()
            ),
        ],
    )


def _seen_before(cell: Cell, datasets: Mapping[str, LoadedDataset], outcome: Outcome | None) -> list[str]:
    """Return remarks on test images that the tested weights may have seen."""
    data, trained_on = datasets[cell.dataset.label], datasets[cell.training.dataset.label]
    train, test = trained_on.splits["train"], data.splits["test"]
    if outcome is None or not isinstance(test, Split) or not isinstance(train, Split):
        return []
    lines = remarks_on_pretraining(outcome.pretrained_on, data.found_in, test.class_names)
    if cell.training.schedule is None or not cell.is_cross_domain or not (data.hashes and trained_on.hashes):
        return lines
    if shared := count_shared(train.rows, trained_on.hashes, test.rows, data.hashes):
        label = cell.training.dataset.label
        lines.append(f"{shared} of {len(test.rows)} test images are also training images of {label}")
    return lines
