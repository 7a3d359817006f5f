"""The parts of a run, between the command, an engine, the driver of its jobs, and the executors that run them.

An engine (hook ``metabench_engines``) turns a suite into cells, and cells into jobs; the driver runs the jobs, in this
process or on an executor (hook ``metabench_executors``), and stores the records that they make. The few-shot engine is
`metabench.executors.few_shot`, the executor of this computer `metabench.executors.local`.
"""

from __future__ import annotations

from metabench.contracts.executor import Condition, Executor, ExecutorConfig, Resources, Ticket
from metabench.contracts.runs import (
    Attempt,
    Cell,
    Console,
    Engine,
    Job,
    Packing,
    Plan,
    Problem,
    Request,
    RunOptions,
    Work,
    engine_of,
    estimate,
)
from metabench.engine.progress import Interrupted, Watcher
from metabench.planning.cells import content_hash
from metabench.planning.suite import SuiteFile
from metabench.planning.time_limits import Limits
from metabench.records.machines import Machine
from metabench.records.measured import Declaration, Estimate
from metabench.records.record import Data, EpisodeResults, Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager

__all__ = [
    "Attempt",
    "Cell",
    "Condition",
    "Console",
    "Data",
    "Declaration",
    "Engine",
    "EpisodeResults",
    "Estimate",
    "Executor",
    "ExecutorConfig",
    "Interrupted",
    "Job",
    "Limits",
    "Machine",
    "Packing",
    "Plan",
    "PluginManager",
    "Problem",
    "Record",
    "Request",
    "Resources",
    "RunOptions",
    "Store",
    "SuiteFile",
    "Ticket",
    "Watcher",
    "Work",
    "content_hash",
    "engine_of",
    "estimate",
]
