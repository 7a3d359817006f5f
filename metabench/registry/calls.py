"""Call functions of plugins with a limit of time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

#: The value of a function, and its exception; None stands for success.
_Answer = tuple[Any, BaseException | None]
#: A function, its arguments, and the queue for its answer.
_Call = tuple[Callable[..., Any], tuple[Any, ...], "queue.SimpleQueue[_Answer]"]


class Stuck(Exception):
    """A function has not returned in time."""


class LimitedCalls:
    """Calls functions one after the other in a thread, and waits for each no longer than a limit.

    All calls come from one thread, since trackers keep the current run by thread. A thread whose function does not
    return is abandoned; it does not keep the process alive.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call] | None = None

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> Any:
        """Return the value of a function.

        Raises:
            Stuck: it has not returned after `seconds`.
            BaseException: whatever it raises.
        """
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_work, args=(self._calls,), daemon=True).start()
        answer: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._calls.put((function, arguments, answer))
        try:
            value, error = answer.get(timeout=seconds)
        except queue.Empty:
            self._calls = None
            raise Stuck(f"it has not returned after {seconds:g} s") from None
        if error is not None:
            raise error
        return value


def _work(calls: queue.SimpleQueue[_Call]) -> None:
    while True:
        function, arguments, answer = calls.get()
        try:
            answer.put((function(*arguments), None))
        except BaseException as error:  # the caller raises it
            answer.put((None, error))
