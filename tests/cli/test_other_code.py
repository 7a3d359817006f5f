"""Results and checkpoints of other code are neither kept nor lost."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from command_line import Command, Distributions
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = """\
name: edited
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 2, downsample: stride}}}
algorithms: {edited: {}}
ways: [2]
shots: [1]
queries: 5
train: {steps: 20, validate_every: 20, validation_episodes: 3}
eval: {episodes: 50}
"""


def install(distributions: Distributions, result_version: str = "") -> None:
    """Install a plugin whose algorithm imports the sign of its scores from a module of its own."""
    spec = f'AlgorithmSpec("edited", "fake_edited_target:Edited", "", result_version="{result_version}")'
    hook = f"@hookimpl\ndef metabench_algorithms(): return [{spec}]\n"
    distributions.add("edited", f"from metabench.specs import AlgorithmSpec, hookimpl\n{hook}")
    target = """
        from fake_edited_sign import SIGN
        from metabench_plugins.algorithms.protonet import ProtoNet
        class Edited(ProtoNet):
            def answer(self, state, query):
                return (1 if self.training else SIGN) * super().answer(state, query)
        """
    (distributions.folder / "fake_edited_target.py").write_text(textwrap.dedent(target), encoding="utf-8")
    distributions.modules += ["fake_edited_target", "fake_edited_sign"]
    write_sign(distributions, 1)
    Path("edited.yaml").write_text(SUITE, encoding="utf-8")


def write_sign(distributions: Distributions, sign: int) -> None:
    (distributions.folder / "fake_edited_sign.py").write_text(f"SIGN = {sign}  # {'edited' * sign}\n", encoding="utf-8")
    for name in ("fake_edited_target", "fake_edited_sign"):
        sys.modules.pop(name, None)


def accuracy() -> float:
    (record,) = Store(Path("out")).records()
    assert record.primary is not None
    return record.primary.value


def test_a_result_of_other_code_is_made_again(metabench: Command, distributions: Distributions) -> None:
    install(distributions)
    assert metabench("run", "edited.yaml", "--output", "out").code == 0
    right = accuracy()
    assert "kept" in metabench("run", "edited.yaml", "--output", "out").err
    write_sign(distributions, -1)
    assert "done" in metabench("run", "edited.yaml", "--output", "out").err
    assert right != 0.5
    assert accuracy() == pytest.approx(1 - right), "the same weights, and the other of two classes"


def test_a_result_version_is_compared_instead_of_the_code(metabench: Command, distributions: Distributions) -> None:
    install(distributions, result_version="7")
    assert metabench("run", "edited.yaml", "--output", "out").code == 0
    write_sign(distributions, -1)
    assert "kept" in metabench("run", "edited.yaml", "--output", "out").err
    (record,) = Store(Path("out")).records()
    assert record.environment["code"]["algorithm"] == "version 7"
