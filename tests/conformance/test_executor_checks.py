"""Each check of an executor, against an executor that breaks just that rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from command_line import Distributions
from kit import failures
from metabench.conformance.executors import CHECKS, Subject
from metabench.registry.manager import PluginManager
from metabench.testing import ExecutorChecks
from subprocesses import SUBPROCESSES

#: A change of the executor's code that breaks each rule, and a part of the message.
BREAKING = {
    "options": ("self.config = config", "self.config = None", "does not keep its options"),
    "torch": ("import sys\n", "import sys\n    import torch\n", "its module imports torch"),
    "runs": ("ticket.command, env", '[*ticket.command[:-1], "7"], env', "a job's end is not seen within"),
    "exits": ("by_machine=code == -signal.SIGKILL", "by_machine=True", "exits with code 3 died by its machine"),
    "killed": ("by_machine=code == -signal.SIGKILL", "by_machine=False", "a job that was killed died by itself"),
    "cancel": ("signal.SIGTERM)", "signal.SIGKILL)", "a cancelled job does not write how it ended"),
    "adopts": ("if self.outlives_driver:", "if True:", "close leaves a worker"),
}


@pytest.fixture
def subject(distributions: Distributions) -> Callable[..., Subject]:
    """Return a function that makes a subject of the executor, with a change of its code."""

    def make(*change: str, name: str = "subprocesses", seconds: float = 120.0) -> Subject:
        assert not change or change[0] in SUBPROCESSES
        distributions.add("subprocesses", SUBPROCESSES.replace(*change) if change else SUBPROCESSES)
        return Subject(name, seconds=seconds, plugins=PluginManager.from_environment({}))

    return make


@pytest.mark.slow
def test_a_sound_executor_keeps_all_rules(subject: Callable[..., Subject]) -> None:
    assert failures(CHECKS, subject()) == {}


@pytest.mark.slow
def test_an_executor_whose_jobs_outlive_the_driver_is_known_by_its_handles(subject: Callable[..., Subject]) -> None:
    found = subject(name="lasting")
    CHECKS["adopts"](found)


@pytest.mark.slow
@pytest.mark.parametrize("rule", BREAKING)
def test_a_broken_rule_is_seen_by_its_check(rule: str, subject: Callable[..., Subject]) -> None:
    *change, message = BREAKING[rule]
    broken = subject(*change, seconds=20.0)
    assert message in failures({rule: CHECKS[rule]}, broken)[rule]


def test_every_check_has_an_executor_that_breaks_it() -> None:
    assert set(BREAKING) == set(CHECKS)


class TestThreeLines(ExecutorChecks):
    """The kit as a plugin's author uses it, on the executor of this computer."""

    executor = "processes"
