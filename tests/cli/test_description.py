"""`metabench list NAME` prints docs, parameters and defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from command_line import Command
from metabench.registry.manager import PluginManager

IDEA = '''
from pydantic import Field
from metabench.api import Algorithm, AlgorithmConfig

class IdeaConfig(AlgorithmConfig):
    """Parameters of `Idea`.

    Attributes:
        depth: how deep
            it goes.
    """

    depth: int = Field(ge=1, le=9)

class Idea(Algorithm):
    """Thinks twice."""

    Config = IdeaConfig

    def adapt(self, support): ...

    def answer(self, state, query): ...
'''


@pytest.mark.parametrize("name", ["maml", "reptile", "siamese", "conv4", "omniglot"])
def test_every_parameter_of_a_built_in_is_described(metabench: Command, plugins: PluginManager, name: str) -> None:
    ended = metabench("list", name)
    assert ended.code == 0
    config = getattr(plugins, f"{plugins.kind_of(name)}_class")(name).Config
    lines = ended.out.splitlines()
    for field in config.model_fields:
        (line,) = [line for line in lines if line.startswith(f"  {field} ")]
        assert len(line.split(maxsplit=1)[1].split("  ")) >= 3, "type, default and docs"
    assert max(map(len, lines)) <= 130


def test_a_class_in_a_file_is_described_with_inherited_parameters(metabench: Command) -> None:
    Path("idea.py").write_text(IDEA, encoding="utf-8")
    ended = metabench("list", "./idea.py:Idea")
    assert ended.code == 0
    assert "Thinks twice." in ended.out
    assert "integer ≥ 1 ≤ 9" in ended.out
    assert "(must be given)" in ended.out
    assert "how deep it goes." in ended.out
    assert "learning rate after the warm-up." in ended.out


def test_a_page_in_markdown_says_what_the_method_is_and_which_parameters_a_test_uses(metabench: Command) -> None:
    ended = metabench("list", "maml", "--format", "markdown")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[:3] == ["# maml", "", "[Finn et al. 2017](https://arxiv.org/abs/1703.03400)"]
    assert "- trains on episodes" in lines
    assert "- tasks: classification, regression" in lines
    start = lines.index("## Differences from the paper")
    assert lines[start + 2].startswith("- the inner loop descends the mean loss")
    used = {row.split("|")[1].strip(): row.split("|")[4].strip() for row in lines if row.startswith("| `")}
    assert used["`inner_steps`"] == "training"
    assert used["`test_inner_steps`"] == "test"
    searched = {row.split("|")[1].strip(): row.split("|")[5].strip() for row in lines if row.startswith("| `")}
    assert searched["`inner_lr`"] == "0.01 … 10, log"
    assert searched["`first_order`"] == ""


def test_a_page_keeps_the_bars_of_types_within_its_table(metabench: Command) -> None:
    Path("idea.py").write_text(IDEA.replace("depth: int = Field(ge=1, le=9)", "depth: int | None = None"), "utf-8")
    ended = metabench("list", "./idea.py:Idea", "--format", "markdown")
    rows = [line for line in ended.out.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


def test_the_form_of_a_list_is_refused(metabench: Command) -> None:
    ended = metabench("list", "algorithms", "--format", "markdown")
    assert (ended.code, ended.out) == (2, "")
    assert "--format is of the page of one NAME" in ended.err


def test_a_logger_is_described_without_parameters(metabench: Command) -> None:
    Path("tracker.py").write_text(
        'from metabench.specs import hookimpl\n\n\nclass Tracker:\n    """Keeps track."""\n\n'
        "    @hookimpl\n    def metabench_run_started(self): ...\n",
        encoding="utf-8",
    )
    ended = metabench("list", "./tracker.py:Tracker")
    assert ended.code == 0
    assert "tracker.py:Tracker: logger of tracker.py" in ended.out
    assert ended.out.endswith("\n\nKeeps track.\n\nparameters: none\n")


def test_an_unknown_name_is_refused_with_the_nearest(metabench: Command) -> None:
    ended = metabench("list", "protonett")
    assert ended.code == 2
    assert "did you mean 'protonet'?" in ended.err


def test_a_kind_may_be_named_in_the_singular(metabench: Command) -> None:
    assert metabench("list", "algorithm") == metabench("list", "algorithms")
