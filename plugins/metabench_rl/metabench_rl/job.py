"""A cell as a job: train, test, and make the record."""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from metabench.contracts import (
    Attempt,
    Data,
    EpisodeResults,
    Interrupted,
    Machine,
    Record,
    Resources,
    Store,
    Watcher,
    content_hash,
)
from metabench.jobs import (
    CellFailed,
    Circumstances,
    Meter,
    StoreError,
    TrainingFiles,
    choose_device,
    circumstances,
    derive_seed,
    described,
    deterministic,
    in_one_line,
    load,
    machine_of,
    seed_generators,
)
from metabench_rl.api import TaskFamily
from metabench_rl.cells import UNRANKED, Cell
from metabench_rl.families import make_algorithm, make_family
from metabench_rl.origin import origin_of_cell
from metabench_rl.pictures import Picture, picture
from metabench_rl.results import Result, measure
from metabench_rl.simulator import Simulator
from metabench_rl.testing import Tested, action_seconds, task_seconds, test
from metabench_rl.training import train


@dataclass(frozen=True)
class Job:
    """A cell that trains and is tested; `metabench.contracts.Job`.

    Attributes:
        cell: the cell.
        suite: name of the suite.
        suite_version: its version; None where it states none.
        profile: name of the profile.
        store: the output directory.
        origin: device, data and code, as a checkpoint stores them.
        machine: the machine, with the share of it that the job has.
        environment: versions and code, for the record.
        executor: name of the executor, for the record; empty in this process.
    """

    cell: Cell
    suite: str
    suite_version: int | None
    profile: str
    store: Store
    origin: Mapping[str, str]
    machine: Machine
    environment: Mapping[str, Any]
    executor: str = ""

    @property
    def key(self) -> str:
        """See `metabench.contracts.Job`."""
        return self.cell.id

    @property
    def after(self) -> Sequence[str]:
        """See `metabench.contracts.Job`."""
        return ()

    @property
    def cells(self) -> Sequence[Cell]:
        """See `metabench.contracts.Job`."""
        return [self.cell]

    @property
    def title(self) -> str:
        """See `metabench.contracts.Job`."""
        return self.cell.title

    @property
    def needs(self) -> Resources:
        """See `metabench.contracts.Job`."""
        return Resources()

    def with_cells(self, cells: Sequence[Cell]) -> Job:
        """See `metabench.contracts.Job`; it has one cell only."""
        return self

    def run(self, watcher: Watcher) -> Iterator[Attempt]:
        """Yield the attempt of the cell; the checkpoint is deleted when it has a result.

        Raises:
            Interrupted: the watcher asked to stop; a checkpoint has been written.
            StoreError: a checkpoint cannot be written or read.
        """
        begun = load()
        here = self._here()
        try:
            self._check_origin()
            with deterministic():
                result = self._result(watcher)
        except (Interrupted, StoreError, KeyboardInterrupt):
            raise
        except CellFailed as error:
            yield Attempt(here.record(str(error), load_start=begun))
        except Exception as error:  # a task family or an algorithm may raise anything; the other cells must go on
            reason = f"{in_one_line(error)} (see {self.store.traceback_name(self.cell.id)})"
            yield Attempt(here.record(reason, load_start=begun), traceback=traceback.format_exc())
        else:
            figures = EpisodeResults(result.figures, result.groups)
            png = result.picture.png if result.picture else None
            yield Attempt(here.record(result=result, load_start=begun), figures, png)
            TrainingFiles(self.store.path, self.key).drop_checkpoint()

    def _here(self) -> Job:
        """Return the job with the machine that this worker sees."""
        device = choose_device("cpu")
        seen = {**self.environment, **described(device)}
        return replace(self, machine=machine_of(device, self.machine.cells_at_once), environment=seen)

    def _check_origin(self) -> None:
        """Check that this worker has the code and the versions of the command.

        Raises:
            CellFailed: it has others, of which results would be other ones.
        """
        here = origin_of_cell(self.cell)
        different = [
            f"{name} {here.get(name)} here, {planned} in the run's plan"
            for name, planned in self.origin.items()
            if here.get(name) != planned
        ]
        if different:
            raise CellFailed(
                f"the worker on {platform.node()} differs from the run: {'; '.join(different)}: install the same there"
            )

    def _result(self, watcher: Watcher) -> Result:
        device, cell = choose_device("cpu"), self.cell
        family = make_family(cell)
        seed_generators(derive_seed(cell.seed, "weights"))
        algorithm = make_algorithm(cell, family)
        training, progress = Simulator(family), None
        if algorithm.trains:
            path = TrainingFiles(self.store.path, self.key).checkpoint
            progress = train(algorithm, training, cell, self.origin, path, watcher)
        testing = Simulator(family)
        watcher.phase("test", cell.tasks.test)

        def advance(done: int, total: int) -> None:
            if watcher.should_stop():
                raise Interrupted
            watcher.advance(done)

        with Meter(device) as meter:
            begun = time.perf_counter()
            tested = test(algorithm, testing, cell, advance)
            seconds = time.perf_counter() - begun
            used = meter.read()
        return measure(
            cell=cell,
            algorithm=algorithm,
            progress=progress,
            tested=tested,
            testing=testing,
            seconds=seconds,
            used=used,
            task_seconds=task_seconds(algorithm, family, cell),
            action_seconds=action_seconds(algorithm, family),
            picture=_picture(tested, family),
        )

    def record(
        self, problem: str | None = None, result: Result | None = None, load_start: float | None = None
    ) -> Record:
        """Return the record of the cell: its result, or the problem.

        Args:
            problem: why there is no result.
            result: the result.
            load_start: the load of the computer when the job began; None where it did not.
        """
        cell = self.cell
        fields: dict[str, Any] = dict(
            cell=cell.id,
            suite=self.suite,
            suite_version=self.suite_version,
            profile=self.profile,
            **{name: text for name, text in cell.labels.items() if name != "seed"},
            way=1,
            shot=cell.adapt.episodes,
            queries=cell.eval.episodes,
            setting=cell.setting,
            seed=cell.seed,
            identity=dict(cell.identity),
            status="ok" if result else "failed",
            error=problem,
            task="regression",
            floor=cell.algorithm in UNRANKED,
            every_seed=cell.every_seed,
            pictured=result.picture.caption if result and result.picture else "",
            **(result.fields if result else {"ranked_by": "return"}),
            device=str(self.machine),
            machine=self.machine,
            circumstances=Circumstances(
                **circumstances(), executor=self.executor, load_start=load_start, load_end=load()
            ),
            dataset_fingerprint=self.origin["dataset_fingerprint"],
            data=Data(episodes=self._episodes(), raw_files=0, licence="MIT"),
            environment=dict(self.environment),
            finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        return Record(**fields)

    def _episodes(self) -> str:
        """Return the key of the test tasks and their noise: methods with the same key are compared task by task."""
        identity, cell = self.cell.identity, self.cell
        family = {"name": cell.family, "horizon": cell.horizon, "data": self.origin["dataset_fingerprint"]}
        return content_hash({"tasks": family, "adapt": identity["adapt"], "test": identity["test"]})


def _picture(tested: Tested, family: TaskFamily) -> Picture | str | None:
    """Return a picture of a test, or why it could not be drawn: a renderer may raise anything, and is not the test."""
    try:
        return picture(tested, family)
    except Exception as error:
        return in_one_line(error)
