"""The few-shot engine: trainings on episodes or images, tested on episodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metabench.contracts import Console, Interrupted, Packing, Request, Resources, RunOptions
from metabench.executors.choosing import executor_of
from metabench.planning.cells import Cell, Training, sharing_a_training
from metabench.planning.confirmation import with_confirmations
from metabench.planning.jobs import Job, make_jobs
from metabench.planning.plan import make_plan
from metabench.planning.suite import DatasetEntry, Suite
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.records.trained import TrainingFiles
from metabench.registry.manager import PluginManager
from metabench.registry.own import PROCESSES
from metabench.text import counted, duration

if TYPE_CHECKING:  # a dry run needs no torch
    import torch

    from metabench.executors.agreement import Planned
    from metabench.executors.job import TrainingJob
    from metabench.executors.loading import LoadedDataset

#: Longest expected seconds of a run without a hint at shorter profiles.
_SHORT = 60.0


class FewShot:
    """Trains few-shot learners on episodes or images, and tests them on the same episodes.

    Args:
        plugins: the provider of the classes.
    """

    def __init__(self, plugins: PluginManager) -> None:
        self._plugins = plugins

    def plan(self, file: SuiteFile, request: Request) -> FewShotPlan:
        """See `metabench.contracts.Engine`."""
        suite, places = resolve(file, request.profile)
        if request.seeds is not None:
            suite = suite.with_seeds(list(request.seeds))
        if request.precision is not None:
            suite = suite.with_precision(request.precision)
        cells = self.cells(suite, places, request.options)
        cells = with_confirmations(cells) if request.options.confirm else cells
        return FewShotPlan(suite, file, cells, self, self._plugins, request)

    def cells(self, suite: Suite, file: SuiteFile, options: RunOptions) -> list[Cell]:
        """Return the cells of a suite, planned in a worker unless the run needs none."""
        from metabench.executors.preparation import plan_in_worker

        return make_plan(suite, file, self._plugins) if options.in_process else plan_in_worker(suite, file)


@dataclass(frozen=True)
class FewShotPlan:
    """The `metabench.contracts.Plan` of a few-shot suite.

    Attributes:
        suite: the resolved suite.
        file: the suite file.
        cells: all cells of the suite, and those that confirm them if that is asked for.
        engine: plans further profiles.
        plugins: the provider of the classes.
        request: the options of the run.
    """

    suite: Suite
    file: SuiteFile
    cells: Sequence[Cell]
    engine: FewShot
    plugins: PluginManager
    request: Request

    @property
    def name(self) -> str:
        """See `metabench.contracts.Plan`."""
        return self.suite.name

    @property
    def profile(self) -> str:
        """See `metabench.contracts.Plan`."""
        return self.suite.profile

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `metabench.contracts.Plan`."""
        return self.suite.model_dump(mode="json", exclude={"profile"})

    def lines(self, cells: Sequence[Cell]) -> Iterator[str]:
        """See `metabench.contracts.Plan`."""
        sharing = sharing_a_training(cells)
        for cell in cells:
            first, schedule = sharing[cell.training.id][0], cell.training.schedule
            if schedule is None:
                training = "nothing is trained"
            else:
                training = str(schedule) if cell is first else f"weights of {first.id}"
            yield f"{cell.id}  {cell.title}  ({training})"

    def prepare(
        self, cells: Sequence[Cell], earlier: Mapping[str, Record], store: Store, packing: Packing
    ) -> FewShotWork:
        """See `metabench.contracts.Plan`."""
        from metabench.data.packing import DataRoots
        from metabench.engine.precision import check_precisions
        from metabench.executors.loading import load_datasets
        from metabench.executors.origin import kept_records
        from metabench.executors.preparation import load_in_workers
        from metabench.machine.device import choose_device

        options = self.request.options
        device = choose_device(self.request.device)
        check_precisions(cells, device)
        roots = DataRoots.from_environment(os.environ)  # first of all, because it checks the variables
        datasets = load_datasets(cells, self.plugins, roots, device, packing) if options.in_process else None
        if datasets is None:
            cells, fingerprints = load_in_workers(cells, packing)
        else:
            fingerprints = {label: dataset.fingerprint for label, dataset in datasets.items()}
        kept, growing = kept_records(cells, earlier, fingerprints, device, self.plugins, store)
        return FewShotWork(
            self.suite,
            self.cells,
            cells,
            fingerprints,
            device,
            self.plugins,
            store,
            kept,
            growing,
            options,
            datasets,
            shorter=self._shorter_profiles,
        )

    def _shorter_profiles(self) -> list[str]:
        from metabench.executors.rehearsal import shorter_profiles

        options = self.request.options
        return shorter_profiles(self.file, self.suite, lambda suite, file: self.engine.cells(suite, file, options))


@dataclass
class FewShotWork:
    """The `metabench.contracts.Work` of a few-shot suite.

    Attributes:
        suite: the suite of the cells.
        plan: all cells of the suite.
        cells: the cells that are to have a record.
        fingerprints: fingerprints of the datasets, by label.
        device: the device that cells run on.
        plugins: the provider of the classes.
        store: the output directory.
        kept: the good records of earlier runs, by cell.
        growing: the results of earlier runs that need further episodes, by cell.
        options: see `RunOptions`.
        datasets: the loaded datasets, by label, to run in this process; None runs workers.
        expected: expected seconds of each cell; of several jobs at once, the longest start first.
        shorter: returns the profiles that take less time.
    """

    suite: Suite
    plan: Sequence[Cell]
    cells: Sequence[Cell]
    fingerprints: Mapping[str, str]
    device: torch.device
    plugins: PluginManager
    store: Store
    kept: Mapping[str, Record]
    growing: Mapping[str, EpisodeResults]
    options: RunOptions
    datasets: Mapping[str, LoadedDataset] | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    shorter: Callable[[], list[str]] = list

    def introduce(self, console: Console) -> None:
        """Print the cells, device, expected time and shorter profiles; see `metabench.contracts.Work`."""
        from metabench.machine.device import describe_device, in_threads, share_of_threads

        finished = f", {len(self.kept)} of them finished before" if self.kept else ""
        profile = f", profile {self.suite.profile}" if self.suite.profile else ""
        console.say(f"{self.suite.name}{profile}: {counted(len(self.cells), 'cell')}{finished}")
        missing = "" if self.device.type == "cuda" else " (no CUDA device is used)"
        jobs = self._at_once
        at_once = f", {jobs} cells at once" if jobs > 1 else ""
        with in_threads(share_of_threads(jobs)):
            console.say(f"device: {describe_device(self.device)}{at_once}{missing}")
            if not self._able:
                return
            console.say("timing a few steps and episodes …")
            self.expected = self._rehearse(console)
        if console.interrupted:
            raise Interrupted
        if not self.expected:
            console.say("expected: unknown, because a cell fails")
            return
        seconds = sum(self.expected.values()) / jobs
        shorter = self.shorter() if seconds > _SHORT else []
        hint = f" (shorter: {', '.join(f'--profile {name}' for name in shorter)})" if shorter else ""
        console.say(f"expected: about {duration(seconds)}{hint}")

    def _rehearse(self, console: Console) -> dict[str, float]:
        """Return the expected seconds of each cell; empty if unknown."""
        from metabench.executors.rehearsal import rehearse, rehearse_in_worker
        from metabench.machine.device import share_of_threads

        weights = [] if self.options.fresh else self.store.trainings()
        with console.watching("timing") as watcher:
            if self.datasets is not None:
                splits = {label: dataset.splits for label, dataset in self.datasets.items()}
                return rehearse(self._able, splits, self.device, self.plugins, weights, watcher)
            return rehearse_in_worker(self._able, self.device, share_of_threads(self._at_once), watcher, weights)

    def jobs(self) -> list[TrainingJob]:
        """See `metabench.contracts.Work`."""
        jobs = list(self._jobs)
        if self._at_once > 1:
            # The longest first ends at most a third later than the best order (Graham 1969).
            jobs.sort(key=lambda job: -sum(self.expected.get(cell.id, 0.0) for cell in job.cells))
        return [self.executable(job) for job in jobs]

    def failed(self, cell: Cell, problem: str) -> Record:
        """See `metabench.contracts.Work`."""
        from metabench.executors.origin import code_of

        fingerprint = self.fingerprints.get(cell.dataset.label, "")
        job = self.executable(Job(cell.training, [cell], []))
        return job.record(cell, code_of(cell, self.plugins), fingerprint=fingerprint, problem=problem)

    @property
    def _able(self) -> list[Cell]:
        """Return the cells that run."""
        return [cell for cell in self.cells if cell.id not in self.kept and not cell.problem]

    @cached_property
    def _jobs(self) -> list[Job]:
        def has_weights(training: Training) -> bool:
            return not self.options.fresh and TrainingFiles(self.store.path, training.id).read() is not None

        return make_jobs(self.plan, self._able, has_weights)

    def _licence(self, entry: DatasetEntry, label: str) -> str:
        """Return the licence of a dataset, of the suite or of its plugin; empty where neither states one."""
        spec = self.plugins.datasets().get(entry.use or label)
        return entry.licence or (spec.licence if spec else "")

    @property
    def _at_once(self) -> int:
        if self.options.in_process:
            return 1
        return max(1, min(executor_of(self.options).slots(self._needs) or 1, len(self._jobs)))

    @property
    def _needs(self) -> Resources:
        return Resources(gpus=int(self.device.type == "cuda"), limits=self.suite.limits)

    @cached_property
    def _surroundings(self) -> dict[str, Any]:
        """Return the machine and the versions, for the records."""
        from metabench.executors.origin import harness_hash, machine_of
        from metabench.machine.device import in_threads, share_of_threads
        from metabench.machine.environment import environment

        with in_threads(share_of_threads(self._at_once)):
            surroundings = {**environment(self.device), "harness": harness_hash()}
            return {"machine": machine_of(self.device, self._at_once), "environment": surroundings}

    def _planned(self, job: Job) -> Planned | None:
        """Return what a worker must have, too; None of workers that run this installation."""
        from metabench.executors.agreement import Planned
        from metabench.executors.origin import planned_code

        if self.options.in_process or self.options.executor_name == PROCESSES:
            return None
        return Planned(code=planned_code(job.training, job.cells, self.plugins), data=self.fingerprints)

    def executable(self, job: Job) -> TrainingJob:
        """Return a job as a worker runs it."""
        from metabench.executors.job import TrainingJob

        return TrainingJob(
            training=job.training,
            cells=job.cells,
            selections=job.selections,
            suite=self.suite.name,
            suite_version=self.suite.version,
            licences={label: self._licence(entry, label) for label, entry in self.suite.datasets.items()},
            profile=self.suite.profile,
            device=self.device,
            store=self.store if self.options.in_process else Store(Path(os.path.abspath(self.store.path))),
            needs=self._needs,
            planned=self._planned(job),
            executor="" if self.options.in_process else self.options.executor_name,
            earlier={cell.id: self.growing[cell.id] for cell in job.cells if cell.id in self.growing},
            reselect=self.options.reselect,
            datasets=self.datasets,
            plugins=self.plugins if self.datasets is not None else None,
            **self._surroundings,
        )
