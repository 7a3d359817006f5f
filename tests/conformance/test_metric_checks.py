"""Each check of a metric, against a metric that breaks just that rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from command_line import Distributions
from kit import failures
from metabench.analysis.metrics import CLASSIFICATION, by_name
from metabench.cli import cli
from metabench.conformance.metrics import CHECKS, SHAPES, Subject, figures_of, made_up, value_of
from metabench.registry.manager import PluginManager
from metabench.testing import MetricChecks

SOURCE = """
    import numpy as np
    from metabench.specs import Metric, MetricSpec, hookimpl

    class Sound(Metric):
        def of_episode(self, outputs, targets):
            return np.exp(outputs).max(axis=-1).mean(axis=1)

    class Queries(Sound):  # figures
        def of_episode(self, outputs, targets):
            return np.exp(outputs).max(axis=-1).sum()

    class Relative(Sound):  # episodes
        def of_episode(self, outputs, targets):
            values = super().of_episode(outputs, targets)
            return values / values.max()

    class Greedy(Sound):  # arguments
        def of_episode(self, outputs, targets):
            outputs -= 0.125
            return np.exp(outputs + 0.125).max(axis=-1).mean(axis=1)

    class Entropy(Sound):  # impossible classes
        def of_episode(self, outputs, targets):
            return -(np.exp(outputs) * outputs).sum(axis=-1).mean(axis=1) / 3

    class Percent(Sound):  # value
        def of_episode(self, outputs, targets):
            return 100 * super().of_episode(outputs, targets)

    @hookimpl
    def metabench_metrics():
        classes = (Sound, Queries, Relative, Greedy, Entropy, Percent)
        return [
            MetricSpec(cls.__name__.lower(), f"{__name__}:{cls.__name__}", "made up", lowest=0.0, highest=1.0)
            for cls in classes
        ]
"""

BREAKING = {
    "figures": ("queries", "of_episode returned () figures of 6 episodes"),
    "episodes": ("relative", "move with the episodes beside it"),
    "arguments": ("greedy", "changes its arguments"),
    "impossible classes": ("entropy", "a product of probability 0 and log-probability -inf is no number"),
    "value": ("percent", "is not between 0 and 1, as declared"),
}
#: Rules that a metric cannot keep if it breaks another.
ALSO_BROKEN = {"figures": set(CHECKS) - {"figures"}, "arguments": {"episodes"}}


@pytest.fixture
def subject(distributions: Distributions) -> Callable[[str], Subject]:
    """Return a function that makes a subject of a metric of the plugin."""
    distributions.add("made-up", SOURCE)
    plugins = PluginManager.from_environment({})
    return lambda name: Subject(name, plugins)


def test_a_sound_metric_keeps_all_rules(subject: Callable[[str], Subject]) -> None:
    assert failures(CHECKS, subject("sound")) == {}


@pytest.mark.parametrize("rule", BREAKING)
def test_a_broken_rule_is_seen_by_its_check(rule: str, subject: Callable[[str], Subject]) -> None:
    name, message = BREAKING[rule]
    found = failures(CHECKS, subject(name))
    assert message in found.pop(rule)
    assert set(found) == ALSO_BROKEN.get(rule, set()), found


def test_every_check_has_a_metric_that_breaks_it() -> None:
    assert set(BREAKING) == set(CHECKS)


@pytest.mark.parametrize("name", [measure.name for measure in CLASSIFICATION])
def test_the_built_in_metrics_are_within_their_bounds(name: str) -> None:
    measure = by_name(CLASSIFICATION)[name]
    for way, queries in SHAPES:
        figures = figures_of(measure.metric, *made_up(way, queries))
        values = figures if figures.ndim == 1 else np.array([value_of(measure.metric, figures)])
        assert measure.declaration.admits(float(values.min()), float(values.max()))


class TestThreeLines(MetricChecks):
    """The kit as a plugin's author uses it."""

    @pytest.fixture(autouse=True)
    def _installed(self, distributions: Distributions) -> None:
        distributions.add("made-up", SOURCE)

    metric = "sound"


def test_the_command_names_what_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "\n".join(line[4:] for line in SOURCE.partition("    @hookimpl")[0].splitlines())
    Path("mine.py").write_text(source, encoding="utf-8")
    result = CliRunner().invoke(cli, ["plugin", "check", "./mine.py:Relative"], standalone_mode=False)
    assert result.return_value == 1
    assert "FAILED  episodes: The figures of an episode do not depend on other episodes" in result.output
    sound = CliRunner().invoke(cli, ["plugin", "check", "./mine.py:Sound"], standalone_mode=False)
    assert sound.output.splitlines()[-1] == f"{len(CHECKS)} of {len(CHECKS)} checks passed"


def test_metrics_are_listed_and_described(distributions: Distributions) -> None:
    distributions.add("made-up", SOURCE)
    listed = CliRunner().invoke(cli, ["list", "metrics"], standalone_mode=False).output
    assert "nll_calibrated" in listed
    assert "percent" in listed
    described = CliRunner().invoke(cli, ["list", "percent"], standalone_mode=False).output
    assert described.startswith("percent: metric of made-up 1.0")
