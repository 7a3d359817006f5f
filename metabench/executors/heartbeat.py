"""The heartbeat of a worker, and who watches it.

A worker beats by a counter in a file, in a thread of its own: a long test, a slow disk or a checkpoint is not death. An
observer calls it silent by its own clock, so that the clocks of two computers need not agree.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from metabench.executors.job_files import Claim

#: Seconds between two beats.
BEAT_SECONDS = 3.0
#: Seconds without a beat after which a worker of this computer counts as lost.
LOST_SECONDS = 60.0
#: The same of a worker of another computer, whose files a cache (NFS) may show late.
LOST_ELSEWHERE_SECONDS = 300.0
#: Most seconds between two looks that count as silence: the observer itself may have been stopped.
_MOST_BETWEEN_LOOKS = 5.0


class Beating(Protocol):
    """A folder in which a process beats: that of a job, or of a member of a shared run."""

    @property
    def path(self) -> Path:
        """Return the folder."""

    def claim(self) -> Claim | None:
        """Return the process; None where there is none."""

    def heartbeat(self) -> str | None:
        """Return the counter; None before the first beat."""

    def beat(self, count: int) -> None:
        """Write the counter."""


class Heartbeat:
    """Beats in a thread from construction on, until `end`.

    Args:
        folder: the folder in which to beat.
        claim: the claim of this worker.
        each: called at each beat.
        disowned: called when another worker has taken the job, which gave this one up.
    """

    def __init__(self, folder: Beating, claim: Claim, each: Callable[[], None], disowned: Callable[[], None]) -> None:
        self._folder, self._claim, self._each, self._disowned = folder, claim, each, disowned
        self._ending = threading.Event()
        folder.beat(0)
        self._thread = threading.Thread(target=self._run, name="metabench heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Beat no more."""
        self._ending.set()

    def _run(self) -> None:
        count = 0
        while not self._ending.wait(BEAT_SECONDS):
            count += 1
            with suppress(OSError):  # a full disk fails the job's own files, with a message
                self._folder.beat(count)
            claim = self._folder.claim()
            if (claim is None and not self._folder.path.exists()) or (claim is not None and claim != self._claim):
                self._disowned()
            self._each()


class Observer:
    """Watches the heartbeat of one process.

    Args:
        folder: the folder in which it beats.
        clock: returns seconds.
    """

    def __init__(self, folder: Beating, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._last: tuple[Claim | None, str | None] = (None, None)
        self._looked = clock()
        self.silent = 0.0
        self.beats = 0

    def look(self) -> None:
        """Read the heartbeat; add up the seconds without one."""
        now = self._clock()
        seen = self._folder.claim(), self._folder.heartbeat()
        if seen != self._last:
            self._last, self.silent = seen, 0.0
            self.beats += 1
        else:
            self.silent += min(now - self._looked, _MOST_BETWEEN_LOOKS)
        self._looked = now

    @property
    def has_claim(self) -> bool:
        """Return whether there was a process, at the last look."""
        return self._last[0] is not None

    @property
    def is_lost(self) -> bool:
        """Return whether a worker that had the job counts as lost, by the looks so far."""
        claim, _ = self._last
        if claim is None:
            return False
        return claim.is_dead or self.silent > (LOST_SECONDS if claim.is_here else LOST_ELSEWHERE_SECONDS)
