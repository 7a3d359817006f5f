"""An algorithm with queries and classes of its own protocol, and the rules of `sampling`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command_line import Command
from metabench.records.record import Record
from metabench.records.store import Store

SUITE = """
name: protocols
datasets: {{glyphs: {{use: {dataset}}}}}
backbones: {{conv4: {{params: {{channels: 4}}}}}}
algorithms:
  protonet: {{}}
  maml: {{test: {{{test}}}, backbone: {{norm: batch}}, train: {{queries: shot}}}}
ways: [{way}]
shots: [1, 2]
queries: 3
train: {{steps: 2, validation_episodes: 2}}
eval: {{episodes: 4, inductive_episodes: 2, {eval}}}
"""


#: A dataset whose classes have groups of two and families of five.
GROUPED = """
from dataclasses import replace

from metabench_plugins.datasets.glyphs import Glyphs


class Grouped(Glyphs):
    def split(self, pack):
        parts = super().split(pack)
        counts = {name: range(len(part.class_names)) for name, part in parts.items()}
        return {
            name: replace(part, groups=[c // 2 for c in counts[name]], families=[c // 5 for c in counts[name]])
            for name, part in parts.items()
        }
"""


def write(test: str = "", eval: str = "sampling: null", dataset: str = "glyphs", way: int = 3) -> None:
    Path("grouped.py").write_text(GROUPED)
    Path("protocols.yaml").write_text(SUITE.format(test=test, eval=eval, way=way, dataset=dataset))


def records(metabench: Command) -> dict[tuple[str, int], Record]:
    run = metabench("run", "protocols.yaml", "--in-process", "--output", "run")
    assert run.code == 0, run.err
    return {(record.algorithm, record.shot): record for record in Store(Path("run")).records()}


def test_queries_of_an_algorithm_are_those_of_its_test_and_not_ranked_with_others(metabench: Command) -> None:
    write("queries: shot")
    found = records(metabench)
    assert {key: record.queries for key, record in found.items()} == {
        **{("protonet", 1): 3, ("protonet", 2): 3},
        **{("maml", 1): 1, ("maml", 2): 2},
    }
    shapes = {shot: found["maml", shot].identity["train"]["shape"] for shot in (1, 2)}
    assert {shot: shape["queries"] for shot, shape in shapes.items()} == {1: 1, 2: 2}
    table = metabench("leaderboard", "run").out
    assert "other episodes" in table


def test_rules_of_classes_are_part_of_a_cell_and_its_training(metabench: Command) -> None:
    write("sampling: one-family", "sampling: one-of-a-group", dataset="./grouped.py:Grouped")
    found = records(metabench)
    for (algorithm, _), record in found.items():
        rule = "one-family" if algorithm == "maml" else "one-of-a-group"
        assert record.identity["shape"]["sampling"] == rule
        assert record.identity["train"]["shape"]["sampling"] == rule


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eval": "sampling: one-family"}, "the classes of 'glyphs' have no families: remove sampling: one-family"),
        (
            {"eval": "sampling: one-family", "dataset": "./grouped.py:Grouped", "way": 6},
            "6 ways asked of 'glyphs', whose train split has at most 5 classes of one family",
        ),
    ],
)
def test_data_without_the_classes_of_a_rule_fail_the_cell(
    arguments: dict[str, Any], message: str, metabench: Command
) -> None:
    write(**arguments)
    run = metabench("run", "protocols.yaml", "--in-process", "--output", "run")
    assert run.code == 1
    assert message in run.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eval": "sampling: groups"}, "meta-dataset"),
        ({"test": "queries: shots"}, "shot"),
        ({"eval": "sampling: one-family, strangers: 2"}, "remove strangers or sampling"),
    ],
)
def test_what_means_nothing_is_refused(arguments: dict[str, str], message: str, metabench: Command) -> None:
    write(**arguments)
    run = metabench("validate", "protocols.yaml")
    assert run.code == 2
    assert message in run.err
    assert "protocols.yaml:" in run.err
