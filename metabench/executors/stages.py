"""The stages of a job, training and tests, and the limits of their time."""

from __future__ import annotations

from typing import Literal

from metabench.contracts import Limits
from metabench.engine.progress import Watcher
from metabench.errors import CellFailed
from metabench.machine.stops import seconds_awake

Stage = Literal["training", "test"]


class Stages:
    """Knows the stage of a job by its phases, and how long it takes.

    Args:
        limits: most time of the training and of each test.

    Attributes:
        stage: the stage.
    """

    def __init__(self, limits: Limits) -> None:
        self.stage: Stage = "training"
        self._limits = limits
        self._since = seconds_awake()

    def begin(self, stage: Stage) -> None:
        """Begin with a training, or with the test of a cell."""
        self.stage, self._since = stage, seconds_awake()

    def phase(self, name: str) -> None:
        """Note a phase; what is neither training nor validation is a part of a test."""
        stage: Stage = "training" if name.startswith(("train", "validate")) else "test"
        if stage != self.stage:
            self.begin(stage)

    @property
    def seconds(self) -> float:
        """Return the seconds of the stage so far, without those in which the process was stopped."""
        return seconds_awake() - self._since

    @property
    def problem(self) -> str:
        """Return the reason of a failure: the stage took longer than its limit."""
        return self._limits.problem(self.stage)

    def check(self) -> None:
        """Check the limit.

        Raises:
            CellFailed: it is over.
        """
        limit = self._limits.of(self.stage)
        if limit is not None and self.seconds > limit:
            raise CellFailed(self.problem)

    def is_overdue(self) -> bool:
        """Return whether the stage goes on long after its limit: the check is not reached."""
        limit = self._limits.of(self.stage)
        return limit is not None and self.seconds > limit + grace(limit)


def grace(limit: float) -> float:
    """Return the seconds beyond a limit in which a job ends its stage by itself: a tenth, 2 to 60 s."""
    return min(60.0, max(2.0, limit / 10))


class Limited:
    """The watcher of a job in this process: passes its progress on, and keeps the limits of time.

    Args:
        watcher: sees the progress.
        stages: the stages of the job.
    """

    def __init__(self, watcher: Watcher, stages: Stages) -> None:
        self._watcher, self._stages = watcher, stages

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.engine.progress.Watcher`."""
        self._stages.phase(name)
        self._watcher.phase(name, total, done)

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.engine.progress.Watcher`; raises as `Stages.check`."""
        self._watcher.advance(done, note)
        self._stages.check()

    def should_stop(self) -> bool:
        """See `metabench.engine.progress.Watcher`."""
        return self._watcher.should_stop()
