"""Parts of the core that a job of an engine uses while it runs; `metabench.contracts` has those that need no torch."""

from __future__ import annotations

from metabench.engine.checkpoints import CheckpointClock, other_code, writing_weights
from metabench.errors import CellFailed, StoreError, Unfit, in_one_line
from metabench.executors.origin import Code, harness_hash, is_valid, machine_of, origin_of
from metabench.files import atomic_file
from metabench.machine.clock import percentiles_ms
from metabench.machine.device import choose_device, describe_device, in_threads, share_of_threads
from metabench.machine.environment import circumstances, described, environment, load
from metabench.machine.memory import PeakMemory
from metabench.machine.meter import Meter, Used
from metabench.machine.reproducible import derive_seed, deterministic, seed_generators
from metabench.planning.identity import IDENTITY_VERSION
from metabench.records.machines import Circumstances
from metabench.records.stages import EvalMetrics, Latency, TrainMetrics, Usage, Validation
from metabench.records.trained import TrainingFiles
from metabench.registry.code import code_hash

__all__ = [
    "IDENTITY_VERSION",
    "CellFailed",
    "CheckpointClock",
    "Circumstances",
    "Code",
    "EvalMetrics",
    "Latency",
    "Meter",
    "PeakMemory",
    "StoreError",
    "TrainMetrics",
    "TrainingFiles",
    "Unfit",
    "Usage",
    "Used",
    "Validation",
    "atomic_file",
    "choose_device",
    "circumstances",
    "code_hash",
    "derive_seed",
    "describe_device",
    "described",
    "deterministic",
    "environment",
    "harness_hash",
    "in_one_line",
    "in_threads",
    "is_valid",
    "load",
    "machine_of",
    "origin_of",
    "other_code",
    "percentiles_ms",
    "seed_generators",
    "share_of_threads",
    "writing_weights",
]
