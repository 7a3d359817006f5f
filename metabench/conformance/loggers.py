"""Check a logger against its contract: hooks that receive the events of runs.

`metabench.testing.LoggerChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metabench.conformance import made_up_run
from metabench.conformance.checks import NotConforming
from metabench.errors import PluginError, in_one_line
from metabench.registry.calls import LimitedCalls, Stuck
from metabench.registry.hooks import Hooks
from metabench.registry.manager import PluginManager

#: Seconds after which a call counts as stuck: some trackers make a database in the first one.
SECONDS = 30.0
#: Seconds that a thread may take to end after a run.
_TO_END = 2.0

_Record = Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """The logger to check.

    Attributes:
        name: name of the logger, as its plugin announces it, or ``FILE.py:CLASS``.
        seconds: most seconds that a call may take.
        plugins: the plugin manager that provides the class.
    """

    name: str
    seconds: float = SECONDS
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)


class Listening:
    """A new logger whose hooks are called as in a run: in one thread, with a limit of time.

    Raises:
        NotConforming: the logger cannot be constructed, or implements a hook that metabench does not have.
        PluginError: no plugin provides the logger, or it needs a package that is not installed.
    """

    def __init__(self, subject: Subject) -> None:
        self._seconds = subject.seconds
        self._calls = LimitedCalls()
        logger = self._call("the constructor", subject.plugins.logger_class(subject.name))
        self._hooks = Hooks()
        try:
            self._hooks.register_logger(logger, subject.name)
        except PluginError as error:
            raise NotConforming(str(error)) from error

    def run(self, output: Path, ended: list[_Record], kept: list[_Record]) -> None:
        """Tell the logger of a run.

        Args:
            output: the output directory.
            ended: records of the cells that this run has ended.
            kept: records that are kept from earlier runs.
        """
        self._tell("run_started", output=output, suite=made_up_run.settings(), cells=len(kept) + len(ended))
        for record in ended:
            self._tell("cell_finished", output=output, record=record)
        self._tell("run_finished", output=output, records=[*kept, *ended])

    def _tell(self, event: str, **arguments: Any) -> None:
        for implementation in self._hooks.implementations(f"metabench_{event}"):
            given = [arguments[name] for name in implementation.argnames]
            self._call(f"metabench_{event}", implementation.function, *given)

    def _call(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._calls.call(function, arguments, self._seconds)
        except Stuck as error:
            raise NotConforming(
                f"{what} has not returned after {self._seconds:g} s: give connections a limit of time, and send "
                "records in the background"
            ) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the logger raises
            raise NotConforming(f"{what} failed: {in_one_line(error)}") from error


# ----------------------------------------------------------------------------------------------- the checks


def check_hooks(subject: Subject) -> None:
    """It is constructed without arguments, and implements a hook."""
    Listening(subject)


def check_run(subject: Subject) -> None:
    """A run with a failed cell raises nothing, and is logged in time."""
    with tempfile.TemporaryDirectory() as output:
        Listening(subject).run(Path(output), [made_up_run.finished(), made_up_run.failed()], kept=[])


def check_second_run(subject: Subject) -> None:
    """A second run into the same folder raises nothing.

    It keeps one cell, and runs the other one again.
    """
    with tempfile.TemporaryDirectory() as output:
        Listening(subject).run(Path(output), [made_up_run.finished(), made_up_run.failed()], kept=[])
        again = made_up_run.finished("2025-01-02T00:00:00+00:00")
        Listening(subject).run(Path(output), [again], kept=[made_up_run.failed()])


def check_sparse_records(subject: Subject) -> None:
    """Records without optional fields raise nothing."""
    for record in made_up_run.sparse():
        with tempfile.TemporaryDirectory() as output:
            Listening(subject).run(Path(output), [record], kept=[])


def check_threads(subject: Subject) -> None:
    """After a run, no thread is left that keeps the process alive."""
    before = set(threading.enumerate())
    # A thread that a hook starts is a daemon by default, since the thread of the hooks is one.
    check_run(subject)
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(_TO_END / len(left))
    alive = [thread.name for thread in left if thread.is_alive()]
    if alive:
        raise NotConforming(
            f"it leaves the thread {alive[0]} running after the run, which keeps the process from ending: end it in "
            "metabench_run_finished, or start it with daemon=True"
        )


CHECKS: dict[str, Callable[[Subject], None]] = {
    "hooks": check_hooks,
    "run": check_run,
    "second run": check_second_run,
    "sparse records": check_sparse_records,
    "threads": check_threads,
}
