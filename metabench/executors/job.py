"""One cell as a job: run it here or in a worker, and make its record."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from metabench.analysis.metrics import RANKED_BY
from metabench.data.order import episodes_key
from metabench.data.packing import DataRoots
from metabench.data.sampler import EpisodeShape
from metabench.engine.cell import run_cell
from metabench.engine.checkpoints import shapes_of
from metabench.engine.outcome import Outcome
from metabench.engine.progress import Interrupted, Watcher
from metabench.errors import CellFailed, StoreError, Unfit, in_one_line
from metabench.executors.loading import LoadedDataset, load_dataset
from metabench.executors.origin import Code, code_of, origin_of
from metabench.machine.device import choose_device
from metabench.planning.identity import IDENTITY_VERSION
from metabench.planning.plan import Cell, classes_left_out
from metabench.records.record import Data, Machine, Record, Status
from metabench.records.store import Store
from metabench.registry.manager import PluginManager

#: Seconds after a signal in which a worker learns that the run is to stop.
_STOP_DELAY = 0.3


@dataclass(frozen=True)
class Attempt:
    """The result of running a cell once.

    Attributes:
        record: the cell's record.
        outcome: the per-episode results and the picture; None if the cell failed or was skipped.
        traceback: the traceback of an unexpected error; empty otherwise.
        died: whether the cell's worker ended without a result; its checkpoint may serve another attempt.
    """

    record: Record
    outcome: Outcome | None = None
    traceback: str = ""
    died: bool = False


def _is_asked_to_stop(watcher: Watcher) -> bool:
    """Return whether the run is to stop; wait until the main process has had the time to say so."""
    deadline = time.monotonic() + _STOP_DELAY
    while not watcher.should_stop() and time.monotonic() < deadline:
        time.sleep(_STOP_DELAY / 10)
    return watcher.should_stop()


@dataclass(frozen=True)
class CellJob:
    """A cell to run, in this process or in a worker (`metabench.executors.processes.Job`).

    Attributes:
        cell: the cell.
        number: its place among the cells of the run, from 1.
        of: the number of cells of the run.
        suite: the suite's name.
        profile: the profile's name.
        device: the device that it runs on.
        machine: the machine, with the share of it that the cell has.
        environment: the versions, for the record.
        store: the output directory.
        shapes: shapes of the test episodes of all cells of this run that share its training.
    """

    cell: Cell
    number: int
    of: int
    suite: str
    profile: str
    device: torch.device
    machine: Machine
    environment: Mapping[str, Any]
    store: Store
    shapes: Sequence[EpisodeShape]

    def run(self, watcher: Watcher) -> Attempt:
        """Run the cell in a worker, which loads plugins and data first."""
        plugins = PluginManager.from_environment()
        choose_device(self.device.type)
        roots = DataRoots.from_environment(os.environ)
        data = load_dataset(self.cell.dataset, plugins, roots, self.device, lambda done, total, name: None)
        return self.attempt(data, plugins, watcher)

    def attempt(self, data: LoadedDataset, plugins: PluginManager, watcher: Watcher) -> Attempt:
        """Run the cell; an error inside it becomes a failed record, `Unfit` a skipped one.

        Raises:
            Interrupted: the watcher asked for it.
            StoreError: a checkpoint cannot be written or read.
        """
        # First of all, because a class in a file may be edited while the cell runs.
        code = code_of(self.cell, plugins)
        origin = origin_of(data.fingerprint, self.device, code)
        try:
            checkpoint, shapes = self._checkpoint(origin)
            outcome = run_cell(self.cell, data.splits, self.device, plugins, checkpoint, watcher, origin, shapes)
            return Attempt(self.record(code, data.fingerprint, data, outcome=outcome), outcome)
        except (StoreError, Interrupted):
            raise
        except CellFailed as error:
            return Attempt(self.record(code, data.fingerprint, data, problem=str(error)))
        except Unfit as error:
            return Attempt(self.record(code, data.fingerprint, data, problem=str(error), status="skipped"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, e.g. SystemExit; the other cells must go on
            # The signal that stops the run may have ended processes that the plugin has started.
            if _is_asked_to_stop(watcher):
                raise Interrupted from error
            problem = f"{in_one_line(error)} (see {self.store.traceback_name(self.cell.id)})"
            return Attempt(self.record(code, data.fingerprint, data, problem=problem), traceback=traceback.format_exc())

    def _checkpoint(self, origin: Mapping[str, str]) -> tuple[Path, Sequence[EpisodeShape]]:
        """Return the checkpoint path and the test shapes that share it.

        If an earlier partial run left a shared checkpoint without this cell's shape, keep that file and use a private
        one.
        """
        private, shared = self.store.checkpoint(self.cell.id), self.store.checkpoint(self.cell.training_id)
        of_others = self.cell.shape not in (shapes_of(shared, origin) or self.shapes)
        return (private, [self.cell.shape]) if of_others or os.path.exists(private) else (shared, self.shapes)

    def record(
        self,
        code: Code,
        fingerprint: str,
        data: LoadedDataset | None = None,
        outcome: Outcome | None = None,
        problem: str | None = None,
        status: Status = "failed",
    ) -> Record:
        """Return the record of the cell: the outcome, or the problem.

        Args:
            code: the code of its classes.
            fingerprint: fingerprint of its dataset; empty if that was not loaded.
            data: its dataset, where this process has loaded it.
            outcome: the outcome; None if the cell failed or was skipped.
            problem: the reason.
            status: the status of a cell without an outcome.
        """
        cell = self.cell
        return Record(
            cell=cell.id,
            suite=self.suite,
            profile=self.profile,
            algorithm=cell.algorithm.label,
            dataset=cell.dataset.label,
            backbone=cell.backbone.label,
            way=cell.shape.way,
            shot=cell.shape.shot,
            queries=cell.shape.queries,
            seed=cell.seed,
            identity=cell.identity,
            status="ok" if outcome else status,
            error=problem,
            ranked_by=outcome.ranked_by if outcome else RANKED_BY,
            metrics=outcome.metrics if outcome else {},
            declarations=outcome.declarations if outcome else {},
            temperature=outcome.temperature if outcome else None,
            inductive_accuracy=outcome.inductive_accuracy if outcome else None,
            transductive=outcome.transductive if outcome else None,
            worst_classes=outcome.worst_classes if outcome else [],
            remarks=outcome.remarks if outcome else [],
            train=outcome.train if outcome else None,
            eval=outcome.eval if outcome else None,
            flops_per_episode=outcome.flops_per_episode if outcome else None,
            peak_memory_bytes=outcome.peak_memory_bytes if outcome else None,
            parameters=outcome.parameters if outcome else None,
            all_parameters=outcome.all_parameters if outcome else None,
            device=str(self.machine),
            machine=self.machine,
            dataset_fingerprint=fingerprint,
            data=self._data(data) if data else None,
            environment={
                **self.environment,
                "providers": dict(code.providers),
                "code": dict(code.hashes),
                "identity": IDENTITY_VERSION,
            },
            finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def _data(self, data: LoadedDataset) -> Data:
        shapes = {"train": self.cell.train.shape, "val": self.cell.shape, "test": self.cell.shape}
        left_out = {name: classes_left_out(data.splits[name], shape) for name, shape in shapes.items()}
        left_out = {name: count for name, count in left_out.items() if count}
        return Data(
            episodes=episodes_key(data.splits["test"], "test", self.cell.shape, self.cell.test.seed, data.test_content),
            raw_files=data.raw_files,
            overlapping=data.findings.overlapping,
            duplicates=dict(data.findings.duplicates),
            left_out=left_out,
            remarks=[
                *data.findings.remarks(),
                *(
                    f"{count} of {data.splits[name].size.classes} classes of {name} have fewer than "
                    f"{shapes[name].per_class} images, and are not drawn"
                    for name, count in left_out.items()
                ),
            ],
        )
