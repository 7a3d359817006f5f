"""Sources that break a rule are found, each by the check of that rule."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from metabench.conformance.checks import NotConforming, run
from metabench.conformance.regressors import CHECKS as OF_REGRESSORS
from metabench.conformance.regressors import Subject as Regressor
from metabench.conformance.sources import CHECKS, Subject
from metabench.registry.manager import PluginManager

SOUND = """
    import torch
    from metabench.api import Algorithm, Episodes, EpisodeSource, Regression

    class Lines(EpisodeSource):
        task = Regression(outputs=1)
        input_shape = (1,)

        def draws(self, shot, queries):
            return 1 + shot + queries

        def episodes(self, uniform, split, shot, queries):
            x = uniform[:, 1:].unsqueeze(-1).float()
            y = uniform[:, :1].unsqueeze(-1).float() * x
            return Episodes(x[:, :shot], y[:, :shot], x[:, shot:], y[:, shot:], self.task)
"""

BROKEN = {
    "shapes": ("y = uniform[:, :1].unsqueeze(-1).float() * x", "y = uniform[:, :1] * x.squeeze(-1)"),
    "repeats": ("* x\n", "* x + torch.rand(1)\n"),
    "queries": ("uniform[:, 1:].unsqueeze", "uniform[:, 1:].flip(1).unsqueeze"),
    "variety": ("uniform[:, :1].unsqueeze(-1).float() * x", "0 * x"),
}


def subject(text: str, folder: Path, plugins: PluginManager) -> Subject:
    path = folder / "lines.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return Subject(f"{path}:Lines", plugins=plugins)


@pytest.mark.parametrize("check", CHECKS)
def test_a_sound_source_passes(check: str, tmp_path: Path, plugins: PluginManager) -> None:
    run(CHECKS[check], subject(SOUND, tmp_path, plugins))


@pytest.mark.parametrize("check", BROKEN)
def test_a_broken_rule_is_found(check: str, tmp_path: Path, plugins: PluginManager) -> None:
    old, new = BROKEN[check]
    assert old in SOUND
    with pytest.raises(NotConforming):
        run(CHECKS[check], subject(SOUND.replace(old, new), tmp_path, plugins))


#: A regressor that answers the mean of the support targets.
MEAN = """
    from metabench.api import Algorithm
    from torch import nn

    class Mean(Algorithm):
        tasks = ("regression",)

        def __init__(self, config, setup):
            super().__init__(config, setup)
            self.head = nn.Linear(setup.backbone.features, setup.outputs)

        def adapt(self, support):
            return support.y.mean(dim=0)

        def answer(self, state, query):
            return self.head(self.backbone(query)) + state
"""


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        ("regression: declared", 'tasks = ("regression",)', "pass"),
        ("regression: prediction changes nothing", "return support.y", "self.head.bias.data += 1; return support.y"),
        ("regression: queries", "(query)) + state", "(query)) + state + query.sum()"),
        ("regression: learning", "+ state", "+ 0 * state"),
    ],
)
def test_a_broken_regressor_is_found(check: str, old: str, new: str, tmp_path: Path, plugins: PluginManager) -> None:
    assert old in MEAN
    path = tmp_path / "mean.py"
    path.write_text(textwrap.dedent(MEAN.replace(old, new)), encoding="utf-8")
    with pytest.raises(NotConforming):
        OF_REGRESSORS[check](Regressor(f"{path}:Mean", steps=20, plugins=plugins))
