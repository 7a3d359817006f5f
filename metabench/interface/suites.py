"""`metabench.run`: run a suite from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metabench.interface.selecting import Filters, accepted

if TYPE_CHECKING:  # imported when it runs
    from metabench.interface.results import Run
    from metabench.planning.suite import Precision
    from metabench.planning.suite_file import SuiteFile
    from metabench.planning.suite_text import KeyPath
    from metabench.registry.manager import PluginManager


def run(
    suite: str | os.PathLike[str] | Mapping[str, Any],
    *,
    profile: str | None = None,
    output: str | os.PathLike[str] | None = None,
    only: Filters | None = None,
    seeds: Sequence[int] | None = None,
    precision: Precision | None = None,
    device: str = "auto",
    jobs: int = 1,
    fresh: bool = False,
    workers: bool | None = None,
) -> Run:
    """Train and test every cell of a suite, and return the results.

    That is ``metabench run``: finished cells are kept, and an interrupted run goes on where it stopped. Progress goes
    to standard error.

    Args:
        suite: file of a suite, name of a suite, or its content; paths in it are relative to the current folder then.
        profile: profile of the suite; None takes its own default.
        output: the output directory; None means ``runs/SUITE/PROFILE``.
        only: the cells to run, e.g. ``{"algorithm": "maml", "shot": [1, 5]}``; None runs all.
        seeds: training seeds in place of the suite's.
        precision: precision of the backbones in place of the suite's.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        jobs: number of cells at once.
        fresh: whether finished cells run again.
        workers: whether trainings have processes of their own, so that they cannot disturb this one; None means: where
            these start fast, or with `jobs`.

    Raises:
        KeyboardInterrupt: it was interrupted; finished cells are kept.
        MetabenchError: wrong input, as on the command line. A cell that failed raises nothing: `Run.cells` has the
            reason.

    Example:
        >>> import metabench
        >>> run = metabench.run(
        ...     {
        ...         "name": "example",
        ...         "datasets": {"glyphs": {}},
        ...         "backbones": {"conv4": {"params": {"channels": 4, "downsample": "stride"}}},
        ...         "algorithms": {"protonet": {}, "nearest-mean": {"train": "none"}},
        ...         "ways": [5],
        ...         "shots": [1],
        ...         "train": {"steps": 4, "validate_every": 2, "validation_episodes": 5},
        ...         "eval": {"episodes": 20},
        ...     },
        ...     device="cpu",
        ... )
        >>> run
        <Run of example: 2 cells in runs/example/default>
        >>> sorted(run.cells["algorithm"])
        ['nearest-mean', 'protonet']
    """
    from metabench.cli.run import default_output, execute
    from metabench.contracts import Request, RunOptions, engine_of
    from metabench.errors import UsageError
    from metabench.executors.forks import prepare_workers, start_is_cheap
    from metabench.filters import select
    from metabench.interface.results import load_run
    from metabench.records.store import Store
    from metabench.registry.manager import PluginManager

    in_process = not (jobs > 1 or start_is_cheap()) if workers is None else not workers
    if in_process and jobs > 1:
        raise UsageError(f"workers=False runs one cell at a time: leave out jobs={jobs}")
    if not in_process:
        prepare_workers()
    plugins = PluginManager.from_environment()
    file = _suite_file(suite, plugins)
    options = RunOptions(fresh=fresh, jobs=jobs, in_process=in_process)
    numbers = None if seeds is None else list(seeds)
    plan = engine_of(file, plugins).plan(file, Request(profile, numbers, precision, device, options))
    cells = select(plan.cells, accepted(only))
    store = Store(default_output(plan, precision) if output is None else Path(output))
    execute(plan, cells, plugins, store, options)
    return load_run(store.path)


def _suite_file(suite: str | os.PathLike[str] | Mapping[str, Any], plugins: PluginManager) -> SuiteFile:
    """Return a suite of a file, of plugins, or of a mapping.

    Raises:
        SuiteError: it is not found, or is no mapping of plain values.
    """
    from metabench.cli.suites import find_suite
    from metabench.errors import SuiteError, in_one_line
    from metabench.planning.suite_file import SuiteFile
    from metabench.planning.suite_text import Reader, write_suite_text

    if not isinstance(suite, Mapping):
        return find_suite(os.fspath(suite), plugins)
    path = Path("suite")
    try:
        # As YAML and back, so that a mapping is as plain as a file.
        data = Reader(path).read(write_suite_text(suite))
    except SuiteError:
        raise
    except Exception as error:  # of yaml's representers
        raise SuiteError(f"the suite is no mapping of plain values ({in_one_line(error)})") from error
    return SuiteFile(path, data, dict(_places(data)))


def _places(value: object, path: KeyPath = ()) -> list[tuple[KeyPath, tuple[KeyPath, int]]]:
    """Return all key paths of a value, without lines, as `metabench.planning.suite_file.SuiteFile.places`."""
    inner: Sequence[tuple[Any, object]] = []
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    below = [place for key, part in inner for place in _places(part, (*path, key))]
    return [(path, (path, 0)), *below]
