"""Tune the methods of a suite, one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metabench.analysis.metrics import OF_TASK
from metabench.contracts import Console, Packing, Problem
from metabench.errors import SuiteError, UsageError
from metabench.executors.few_shot import FewShotPlan, FewShotWork
from metabench.executors.origin import training_origin
from metabench.executors.processes import Died, run_job
from metabench.filters import passes, select
from metabench.machine.device import share_of_threads
from metabench.planning.cells import Cell, content_hash, sharing_a_training
from metabench.planning.suite import Suite, Train, Tuned
from metabench.records.measured import Declaration
from metabench.records.store import Store
from metabench.tuning.proposals import propose
from metabench.tuning.pruning import MedianRule
from metabench.tuning.searches import Search, cells_of, searches_of, trains_itself
from metabench.tuning.table import Found, line_of
from metabench.tuning.trial_job import Hopeless, TrialJob, Validated
from metabench.tuning.trials import Method, Trial, Tuning, TuningFile, best_of


@dataclass(frozen=True)
class Result:
    """The result of a tuning.

    Attributes:
        methods: what was found, by method.
        settings: the suite with what was found, as plain data.
    """

    methods: Sequence[Found]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Tuner:
    """Tunes a suite: each method has the same number of trials, which are validated and never tested.

    Attributes:
        plan: the planned suite.
        filters: the accepted labels of its cells (``--only``).
        trials: number of trials of each method.
        seed: seed of the search.
        store: the output directory.
        console: shows the progress.
    """

    plan: FewShotPlan
    filters: Mapping[str, Sequence[str]]
    trials: int
    seed: int
    store: Store
    console: Console

    def run(self, packing: Packing) -> Result:
        """Make the trials that the output directory lacks, and write the suite with what was found.

        Args:
            packing: opens a progress display for loading a dataset.

        Raises:
            Interrupted: the user asked to stop; finished trials are kept, and the checkpoint of the last one.
            MetabenchError: there is nothing to search, or the output directory cannot be used.
        """
        cells = select(self.plan.cells, self.filters)
        searches = searches_of(self.plan.suite, cells, self.plan.plugins)
        metric, file = _metric_of(cells), TuningFile(self.store)
        only = {key: list(accepted) for key, accepted in self.filters.items()}
        tuning = file.begin(Tuning(suite=dict(self.plan.settings), only=only, seed=self.seed))
        self.store.check_own()
        work = self.plan.prepare(cells, {}, self.store, packing)
        suite, found = self.plan.suite, []
        with self.store.locked():
            for search in searches:
                tuning = self._tuned(search, suite, tuning, work, metric, file)
                trials = tuning.methods[search.label].trials[: self._number(search)]
                found.append(Found(search, trials, metric))
                suite = _with_found(suite, found[-1])
            settings = suite.model_dump(mode="json", exclude={"profile"})
            name = f"{suite.name[:74]}-tuned"
            text = f"{suite.name} with parameters of {self.trials} trials on validation a method. {suite.description}"
            settings |= {"name": name, "version": None, "description": text.strip()}
            self.store.write_suite(settings)
        return Result(found, settings)

    def _number(self, search: Search) -> int:
        """Return the number of trials of a method: where there is nothing to search, its own parameters alone."""
        return self.trials if search.space else 1

    def _tuned(
        self, search: Search, suite: Suite, tuning: Tuning, work: FewShotWork, metric: Declaration, file: TuningFile
    ) -> Tuning:
        """Return the tuning with all trials of a method, which are written one by one."""
        label, number = search.label, self._number(search)
        own = cells_of(label, suite, self._cells(suite))
        method, origin = tuning.methods.get(label), self._origin(own, work)
        if method is not None and method.origin != origin:
            self.console.say(f"{label}: its code, data or sources have changed, so that earlier trials do not count")
        if method is None or method.origin != origin:
            method = Method(origin=origin)
        if kept := min(number, len(method.trials)):
            self.console.say(f"{label}: {kept} of {number} trials were made before")
        while len(method.trials) < number:
            trial = self._next(search, suite, method.trials, work, metric)
            method = method.model_copy(update={"trials": [*method.trials, trial]})
            tuning = tuning.model_copy(update={"methods": {**tuning.methods, label: method}})
            file.write(tuning)
            self._drop_weights(tuning, label, metric)
            self.console.say(f"{label} {len(method.trials)}/{number}: {line_of(trial, metric)}")
        return tuning.model_copy(update={"methods": {**tuning.methods, label: method}})

    def _next(
        self, search: Search, suite: Suite, trials: Sequence[Trial], work: FewShotWork, metric: Declaration
    ) -> Trial:
        """Make one trial; one with the parameters of an earlier one has its result."""
        params = propose(search, trials, self.seed, metric.sign)
        known = next((trial for trial in trials if trial.params == params), None)
        if known is not None:
            return known.model_copy(update={"seconds": 0.0})
        start = time.monotonic()
        tried = Trial(params=params, state="failed")
        title = f"{search.label} {len(trials) + 1}/{self._number(search)}"
        with self.console.watching(title) as watcher:
            values: dict[str, list[float]] = {}
            try:
                cells, jobs = self._jobs(search, _with_params(suite, search.label, params), trials, work, metric)
            except SuiteError as error:  # parameters that do not go together
                return tried.model_copy(update={"reason": str(error)})
            for job in jobs:
                result = (
                    next(job.run(watcher))
                    if self.plan.request.options.in_process
                    else run_job(job, share_of_threads(1), watcher)
                )
                tried = self._noted(tried, job, result)
                if not isinstance(result, Validated):
                    break
                values |= result.values
            else:
                means = np.mean([values[cell.id] for cell in cells], axis=0)
                tried = tried.model_copy(update={"state": "complete", "values": means.tolist()})
        return tried.model_copy(update={"seconds": time.monotonic() - start})

    def _jobs(
        self, search: Search, suite: Suite, trials: Sequence[Trial], work: FewShotWork, metric: Declaration
    ) -> tuple[list[Cell], list[TrialJob]]:
        """Return the cells of a trial, and the jobs that train and validate them."""
        planned = self._cells(suite)
        cells = [cell for cell in cells_of(search.label, suite, planned) if passes(cell.labels, self.filters)]
        for cell in cells:
            if cell.problem:
                raise SuiteError(cell.problem)
        settings = suite.train or Train(steps=1)
        jobs, trainings = [], 0
        for job in replace(work, suite=suite, plan=planned, cells=cells).jobs():
            judge = MedianRule.of(trials, trainings, metric.sign) if _is_own(job.cells) else None
            trainings += _is_own(job.cells)
            jobs.append(TrialJob(job, settings.validation_episodes, settings.validation_seed, judge))
        return cells, jobs

    def _noted(self, trial: Trial, job: TrialJob, result: Validated | Hopeless | Problem | Died) -> Trial:
        """Return a trial with the result of one of its jobs."""
        if isinstance(result, (Problem, Died)):
            if isinstance(result, Problem) and result.traceback:
                self.store.write_text(self.store.traceback_name(job.job.key), result.traceback)
            return trial.model_copy(update={"reason": result.problem})
        changes: dict[str, Any] = {"state": "pruned"} if isinstance(result, Hopeless) else {}
        if _is_own(job.job.cells):
            changes["curves"] = [*trial.curves, list(result.curve)]
            changes["trainings"] = [*trial.trainings, job.job.key]
        return trial.model_copy(update=changes)

    def _cells(self, suite: Suite) -> list[Cell]:
        """Return all cells of a suite."""
        return self.plan.engine.cells(suite, self.plan.file, self.plan.request.options)

    def _origin(self, cells: Sequence[Cell], work: FewShotWork) -> str:
        """Return a hash of what the trials of a method depend on beside their parameters."""
        chosen = [cell for cell in cells if passes(cell.labels, self.filters)]
        origins = {
            training: training_origin(
                sharing[0].training,
                work.fingerprints.get(sharing[0].training.dataset.label, ""),
                work.device,
                self.plan.plugins,
            )
            for training, sharing in sharing_a_training(chosen).items()
        }
        heads = {cell.algorithm.name: self.plan.plugins.code("algorithm", cell.algorithm.name) for cell in chosen}
        return content_hash({"cells": sorted(cell.id for cell in chosen), "origins": origins, "code": heads})

    def _drop_weights(self, tuning: Tuning, label: str, metric: Declaration) -> None:
        """Delete the weights of trials of a method that are not those of the best one."""
        best = [best_of(method.trials, metric) for method in tuning.methods.values()]
        needed = {training for trial in best if trial for training in trial.trainings}
        for training in {training for trial in tuning.methods[label].trials for training in trial.trainings} - needed:
            self.store.drop_weights(training)


def _is_own(cells: Sequence[Cell]) -> bool:
    """Return whether the training of a job is that of the method itself."""
    return any(trains_itself(cell) for cell in cells)


def _metric_of(cells: Sequence[Cell]) -> Declaration:
    """Return the metric that ranks.

    Raises:
        UsageError: the cells have several.
    """
    tasks = {cell.test.task for cell in cells}
    if len(tasks) > 1:
        raise UsageError("classification and regression have no common metric: tune one of them, by --only dataset=…")
    return OF_TASK[tasks.pop()][0].declaration


def _with_params(suite: Suite, label: str, params: Mapping[str, Any], **changes: object) -> Suite:
    """Return a suite in which an algorithm has some other parameters."""
    entry = suite.algorithms[label]
    changed = entry.model_copy(update={"params": {**entry.params, **params}, **changes})
    return suite.model_copy(update={"algorithms": {**suite.algorithms, label: changed}})


def _with_found(suite: Suite, found: Found) -> Suite:
    """Return a suite with the parameters that were found for a method; its own where no trial is complete."""
    tuned = Tuned(
        trials=len(found.trials) if found.search.space else 0,
        pruned=found.count("pruned"),
        failed=found.count("failed"),
    )
    params = found.best.params if found.best and found.best is not found.trials[0] else {}
    return _with_params(suite, found.search.label, params, tuned=tuned)
