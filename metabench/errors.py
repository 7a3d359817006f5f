"""Errors that say what was wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from metabench.text import one_line


class MetabenchError(Exception):
    """Wrong input, reported by its message and exit code 2.

    The command line prints the message and writes no files.
    """


class UsageError(MetabenchError):
    """An option does not fit the suite, run or device."""


class SuiteError(MetabenchError):
    """A suite file is missing or not valid."""


class PluginError(MetabenchError):
    """A plugin, or a name that one provides, is unusable."""


class PluginExited(PluginError):
    """Code of a plugin asked the process to exit."""


class DataError(MetabenchError):
    """A dataset is missing, damaged, or cannot be stored."""


class InvalidData(DataError):
    """A dataset's class fails, or returns values that break its contract."""


class StoreError(MetabenchError):
    """An output directory cannot be read or written."""


class CellFailed(Exception):
    """One cell cannot continue, e.g. because its loss diverged.

    The cell is recorded as failed; the other cells of the run continue.
    """


class Unfit(Exception):
    """An algorithm or backbone does not fit a cell, e.g. its images are too small.

    Raised by constructors. The cell is recorded as skipped; the other cells of the run continue. A wrong parameter is a
    ValueError, which refuses the run.

    Args:
        reason: one sentence that names the setting to change.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


def shown(text: object, limit: int = 60) -> str:
    """Return text for a message: control characters escaped, cut to `limit` characters."""
    line = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)[: limit + 1]
    )
    return line if len(line) <= limit else line[: limit - 1] + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint at the closest known word.

    The hint is ``" (did you mean 'x'?)"``, or empty where no known word is similar.
    """
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{shown(matches[0])}'?)" if matches else ""


def in_one_line(error: BaseException) -> str:
    """Return type and message of a foreign error in one line, cut where it is long."""
    try:
        text = one_line(str(error))
    except BaseException:  # a plugin's exception may have a broken __str__
        text = "its message cannot be shown"
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__
