"""End the process, whatever threads and exit handlers a plugin has left in it."""

from __future__ import annotations

import os
import sys
import threading
import time

from metabench.cli.streams import say
from metabench.registry.manager import EVENT_SECONDS


def end_soon(code: int) -> None:
    """Let the process end by itself; end it with this exit code if it has not ended in `EVENT_SECONDS`."""
    threading.Thread(target=_end_late, args=(code,), daemon=True).start()


def _end_late(code: int) -> None:
    # A daemon thread: it runs while Python waits for other threads and calls exit handlers.
    time.sleep(EVENT_SECONDS)
    threads = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.is_alive()]
    waiting = ", ".join(name for name in threads if name != threading.main_thread().name)
    left = f"the thread {waiting}" if waiting else "an exit handler"
    try:
        say(f"metabench: {left} of a plugin has not ended after {EVENT_SECONDS:g} s: ended the process", err=True)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:  # the reader of a stream may have gone
        os._exit(code)
