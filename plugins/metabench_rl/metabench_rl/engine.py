"""The engine of meta-reinforcement learning; planning imports neither torch nor a simulator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from metabench.contracts import Console, Packing, PluginManager, Record, Request, Store, SuiteError, SuiteFile
from metabench_rl.cells import Cell, cells_of
from metabench_rl.suite import Suite, read

if TYPE_CHECKING:  # a plan needs no torch
    from metabench_rl.job import Job


class MetaRL:
    """Trains policies that adapt to a new task within a few episodes, and tests them on unseen tasks.

    Args:
        plugins: not asked for anything: the engine has its own algorithms and task families.
    """

    def __init__(self, plugins: PluginManager) -> None:
        pass

    def plan(self, file: SuiteFile, request: Request) -> Plan:
        """See `metabench.contracts.Engine`."""
        suite, params = read(file, request.profile)
        if request.precision not in (None, "float32"):
            raise SuiteError(f"{file.path}: --precision {request.precision}: this engine computes in float32 only")
        if request.device == "cuda":
            raise SuiteError(f"{file.path}: --device cuda: this engine computes on the CPU: leave out --device")
        if request.seeds is not None:
            suite = suite.model_copy(update={"seeds": list(request.seeds)})
        return Plan(suite, list(cells_of(suite, params)), request)


@dataclass(frozen=True)
class Plan:
    """A planned suite; `metabench.contracts.Plan`.

    Attributes:
        suite: the resolved suite.
        cells: its cells.
        request: the options of the run.
    """

    suite: Suite
    cells: Sequence[Cell]
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

    def lines(self, cells: Sequence[Cell]) -> Iterable[str]:
        """See `metabench.contracts.Plan`."""
        return (f"{cell.id}  {cell.title}  ({cell.setting})" for cell in cells)

    def prepare(self, cells: Sequence[Cell], earlier: Mapping[str, Record], store: Store, packing: Packing) -> Work:
        """See `metabench.contracts.Plan`."""
        return Work(self.suite, cells, earlier, store, self.request)


@dataclass
class Work:
    """A run that is ready; `metabench.contracts.Work`.

    Attributes:
        suite: the suite.
        cells: the cells that are to have a record.
        earlier: the records of earlier runs, by cell.
        store: the output directory.
        request: the options of the run.
        expected: empty: the seconds of a cell are not measured before.
    """

    suite: Suite
    cells: Sequence[Cell]
    earlier: Mapping[str, Record]
    store: Store
    request: Request
    expected: Mapping[str, float] = field(default_factory=dict)
    _origins: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def introduce(self, console: Console) -> None:
        """Print the number of cells and the device; see `metabench.contracts.Work`."""
        from metabench.jobs import choose_device, describe_device

        finished = f", {len(self.kept)} of them finished before" if self.kept else ""
        profile = f", profile {self.suite.profile}" if self.suite.profile else ""
        console.say(f"{self.suite.name}{profile}: {len(self.cells)} cells of meta-reinforcement learning{finished}")
        console.say(f"device: {describe_device(choose_device('cpu'))}")

    @cached_property
    def kept(self) -> Mapping[str, Record]:
        """See `metabench.contracts.Work`."""
        from metabench_rl.origin import is_kept

        found = {cell.id: (cell, self.earlier[cell.id]) for cell in self.cells if cell.id in self.earlier}
        return {name: record for name, (cell, record) in found.items() if is_kept(record, cell, self.store)}

    def jobs(self) -> Sequence[Job]:
        """See `metabench.contracts.Work`."""
        return [self._job(cell) for cell in self.cells if cell.id not in self.kept]

    def failed(self, cell: Cell, problem: str) -> Record:
        """See `metabench.contracts.Work`."""
        return self._job(cell).record(problem)

    def _job(self, cell: Cell) -> Job:
        from metabench_rl.job import Job
        from metabench_rl.origin import environment_of, origin_of_cell

        options = self.request.options
        return Job(
            cell=cell,
            suite=self.suite.name,
            suite_version=self.suite.version,
            profile=self.suite.profile,
            store=self.store,
            origin=origin_of_cell(cell),
            environment={**self._environment, **environment_of(cell)},
            machine=self._machine,
            executor="" if options.in_process else options.executor_name,
        )

    @cached_property
    def _environment(self) -> Mapping[str, Any]:
        from metabench.jobs import choose_device, environment, harness_hash

        return {**environment(choose_device("cpu")), "harness": harness_hash()}

    @cached_property
    def _machine(self) -> Any:
        from metabench.jobs import choose_device, in_threads, machine_of, share_of_threads

        options = self.request.options
        at_once = 1 if options.in_process else max(1, min(options.jobs, len(self.cells) - len(self.kept)))
        with in_threads(share_of_threads(at_once)):
            return machine_of(choose_device("cpu"), at_once)
