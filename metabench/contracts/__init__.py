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
from metabench.errors import MetabenchError, SuiteError, nearest
from metabench.planning.cells import content_hash
from metabench.planning.suite import Gate
from metabench.planning.suite_file import SuiteFile, validated, with_profile
from metabench.planning.time_limits import Duration, Limits
from metabench.records.machines import Machine
from metabench.records.measured import Declaration, EngineCost, Estimate, Place
from metabench.records.record import Data, EpisodeResults, Record
from metabench.records.store import Store
from metabench.registry.configs import first_problem
from metabench.registry.manager import PluginManager

__all__ = [
    "Attempt",
    "Cell",
    "Condition",
    "Console",
    "Data",
    "Declaration",
    "Duration",
    "Engine",
    "EngineCost",
    "EpisodeResults",
    "Estimate",
    "Executor",
    "ExecutorConfig",
    "Gate",
    "Interrupted",
    "Job",
    "Limits",
    "Machine",
    "MetabenchError",
    "Packing",
    "Place",
    "Plan",
    "PluginManager",
    "Problem",
    "Record",
    "Request",
    "Resources",
    "RunOptions",
    "Store",
    "SuiteError",
    "SuiteFile",
    "Ticket",
    "Watcher",
    "Work",
    "content_hash",
    "engine_of",
    "estimate",
    "first_problem",
    "nearest",
    "validated",
    "with_profile",
]
