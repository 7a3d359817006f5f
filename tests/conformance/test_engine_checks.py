"""Each check of an engine, against an engine that breaks just that rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bandits import BANDITS, SUITE
from command_line import Distributions
from kit import failures
from metabench.cli import cli
from metabench.conformance.engines import CHECKS, Subject
from metabench.registry.manager import PluginManager
from metabench.testing import EngineChecks

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

#: A change of the engine's code that breaks each rule, and a part of the message.
BREAKING = {
    "torch": ("import os\n", "import os\n    import torch\n", "imports torch"),
    "cells": (
        "return content_hash(self.identity)",
        "return content_hash({**self.identity, 'at': id(self)})",
        "the same suite gives other ids or settings",
    ),
    "seeds": ("seeds = request.seeds or [0]", "seeds = [0]", "request.seeds is not used"),
    "jobs": ('title: str = "exploration"', "title: object = lambda: 0", "cannot be sent to a worker"),
    "records": ('{"reward": values}, np', '{"reward": values / 2}, np', "disagree"),
    "repeated": ("default_rng([episode, cell.seed])", "default_rng()", "two runs of the suite differ"),
    "kept": ('if record.status == "ok"', 'if record.status == "done"', "cells with a good record run again"),
    "failures": ("error=problem)", "error='it failed')", "failed returned failed, 'it failed'"),
    "stops": ("raise Interrupted", "pass", "a job goes on when watcher.should_stop() is true"),
}
#: Rules that an engine cannot keep if it breaks another.
ALSO_BROKEN = {"cells": {"jobs", "records", "kept", "repeated"}}


@pytest.fixture
def subject(distributions: Distributions, tmp_path: Path) -> Callable[..., Subject]:
    """Return a function that makes a subject of the engine, with a change of its code."""
    suite = tmp_path / "explored.yaml"
    suite.write_text(SUITE, encoding="utf-8")

    def make(*change: str) -> Subject:
        assert not change or change[0] in BANDITS
        distributions.add("bandits", BANDITS.replace(*change) if change else BANDITS)
        return Subject(suite, plugins=PluginManager.from_environment({}))

    return make


def test_a_sound_engine_keeps_all_rules(subject: Callable[..., Subject]) -> None:
    assert failures(CHECKS, subject()) == {}


@pytest.mark.parametrize("rule", BREAKING)
def test_a_broken_rule_is_seen_by_its_check(rule: str, subject: Callable[..., Subject]) -> None:
    *change, message = BREAKING[rule]
    found = failures(CHECKS, subject(*change))
    assert message in found.pop(rule)
    assert set(found) <= ALSO_BROKEN.get(rule, set()), found


def test_every_check_has_an_engine_that_breaks_it() -> None:
    assert set(BREAKING) == set(CHECKS)


#: A suite of the few-shot engine: a training of two cells, and one that trains nothing.
FEW_SHOT = """\
name: small
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 2, downsample: stride}}}
algorithms: {protonet: {}, simpleshot: {weights: protonet}}
ways: [2]
shots: [1, 2]
queries: 2
train: {steps: 2, validate_every: 2, validation_episodes: 2}
eval: {episodes: 4, inductive_episodes: 2}
"""


def test_the_few_shot_engine_keeps_all_rules(tmp_path: Path) -> None:
    suite = tmp_path / "small.yaml"
    suite.write_text(FEW_SHOT, encoding="utf-8")
    assert failures(CHECKS, Subject(suite)) == {}


class TestThreeLines(EngineChecks):
    """The kit as a plugin's author uses it."""

    @pytest.fixture(autouse=True)
    def _installed(self, distributions: Distributions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        distributions.add("bandits", BANDITS)
        suite = tmp_path / "explored.yaml"
        suite.write_text(SUITE, encoding="utf-8")
        monkeypatch.setattr(type(self), "suite", str(suite))

    suite = "explored.yaml"


def test_the_command_checks_an_engine_by_a_suite(subject: Callable[..., Subject], tmp_path: Path) -> None:
    subject("raise Interrupted", "pass")

    def check(*arguments: str) -> Any:
        return CliRunner().invoke(cli, ["plugin", "check", *arguments], standalone_mode=False)

    result = check("bandits", "--suite", str(tmp_path / "explored.yaml"))
    assert result.return_value == 1
    assert "FAILED  stops: A job that is asked to stop raises Interrupted." in result.output
    assert "give a small suite of it by --suite FILE" in str(check("bandits").exception)
    other = str(check("few-shot", "--suite", str(tmp_path / "explored.yaml")).exception)
    assert "engine: the suite is one of the engine 'bandits', not of 'few-shot'" in other
