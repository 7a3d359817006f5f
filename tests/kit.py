"""What the tests of the kit's checks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from metabench.conformance.checks import verdicts

_Subject = TypeVar("_Subject")


def failures(checks: Mapping[str, Callable[[_Subject], None]], subject: _Subject) -> dict[str, str]:
    """Return the message of each check that fails."""
    return {name: problem for name, problem in verdicts(checks, subject) if problem}
