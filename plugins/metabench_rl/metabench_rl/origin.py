"""The code and the data that a result depends on, beside its settings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from metabench.contracts import Record, Store, content_hash
from metabench.jobs import IDENTITY_VERSION, Code, choose_device, code_hash, is_valid, origin_of
from metabench_rl.cells import Cell
from metabench_rl.configs import ALGORITHMS
from metabench_rl.environments.names import family_of


def code_of(cell: Cell) -> Code:
    """Return the code of a cell: of the engine, the algorithm and the task family."""
    found = family_of(cell.family)
    assert found is not None, "the suite was validated"
    targets = {"engine": "metabench_rl.job", "algorithm": ALGORITHMS[cell.algorithm][1], "dataset": found[0]}
    provider = f"metabench-rl {_version('metabench-rl')}"
    return Code(dict.fromkeys(targets, provider), {role: code_hash(target) for role, target in targets.items()})


def fingerprint(cell: Cell) -> str:
    """Return the hash of the task family and the versions of its simulator."""
    libraries = () if cell.family == "point2d" else ("metaworld", "mujoco")
    return content_hash({"family": cell.family, **{name: _version(name) for name in libraries}})


def origin_of_cell(cell: Cell) -> dict[str, str]:
    """Return the origin of a result, as checkpoints store it."""
    return origin_of(fingerprint(cell), choose_device("cpu"), code_of(cell))


def environment_of(cell: Cell) -> Mapping[str, Any]:
    """Return the code of a cell, for its record."""
    code = code_of(cell)
    return {"providers": dict(code.providers), "code": dict(code.hashes), "identity": IDENTITY_VERSION}


def is_kept(record: Record, cell: Cell, store: Store) -> bool:
    """Return whether a record of an earlier run would be the same again."""
    # The setting is that of its table: a budget that an untrained cell does not have may have changed.
    known = record.status == "ok" and record.setting == cell.setting
    return known and is_valid(record, origin_of_cell(cell)) and store.is_complete(record)


def _version(distribution: str) -> str:
    """Return the version of a distribution; empty if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
