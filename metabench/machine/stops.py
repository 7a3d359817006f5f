"""A clock that stands still while the process is stopped, e.g. by SIGSTOP or Ctrl-Z."""

from __future__ import annotations

import signal
import threading
import time
from functools import cache

#: Seconds between two looks at the clock; so many may be lost with each stop.
_BEAT_SECONDS = 0.25


def seconds_awake() -> float:
    """Return a time in seconds that does not advance while the process is stopped; only differences have a meaning.

    Stops are known after `watch_stops`, where the system has `sigtimedwait` (Linux).
    """
    return _stops().seconds_awake()


def watch_stops() -> None:
    """Notice from now on when the process is stopped and continued; call it in the main thread."""
    if hasattr(signal, "sigtimedwait") and not _stops().is_alive():
        # Blocked in every thread that starts later as well, so that the watching thread receives the signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
        _stops().start()


class _Stops(threading.Thread):
    """Waits for SIGCONT, and adds up the time between the last beat and the signal."""

    def __init__(self) -> None:
        super().__init__(name="metabench stops", daemon=True)
        self._stopped = 0.0
        self._beat = time.perf_counter()

    def run(self) -> None:
        """Watch until the process ends."""
        self._beat = time.perf_counter()
        while True:
            continued = signal.sigtimedwait({signal.SIGCONT}, _BEAT_SECONDS)
            now = time.perf_counter()
            if continued is not None:
                self._stopped += now - self._beat
            self._beat = now

    def seconds_awake(self) -> float:
        """Return the time less all stops."""
        # A late beat: perhaps the process has just been continued, and this thread runs before the watching one.
        while self.is_alive() and time.perf_counter() - self._beat > 2 * _BEAT_SECONDS:
            time.sleep(0.001)
        return time.perf_counter() - self._stopped


@cache
def _stops() -> _Stops:
    """Return the only watch of this process, as only a process has signals."""
    return _Stops()
