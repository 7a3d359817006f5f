"""Errors that a user sees. Each message says what was wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MetabenchError(Exception):
    """The input was wrong: the command line prints the message, writes nothing and exits with 2."""


class UsageError(MetabenchError):
    """An option makes no sense for what it is used on."""


class SuiteError(MetabenchError):
    """A suite file is not valid."""


class PluginError(MetabenchError):
    """A plugin, or a name that a plugin should provide, is not there or not usable."""


class DataError(MetabenchError):
    """A dataset is missing, damaged, or cannot be stored."""


class StoreError(MetabenchError):
    """An output directory cannot be read or written."""


class CellFailed(Exception):
    """One cell cannot go on (divergence, memory): it is recorded as failed and the others go on."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the closest of `known`, or an empty string."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{found[0]}'?)" if found else ""


def in_one_line(error: BaseException) -> str:
    """Return type and message of a foreign error in one line, cut where it is long."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__
