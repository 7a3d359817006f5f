"""Wrong input is one message, exit code 2, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from command_line import SUITE, Command, assert_refused, everything_below
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")


WRONG_SUITES = [
    ("  protonet:", "  protonte:", ["small.yaml:7: ", "'protonte'", "did you mean 'protonet'?"]),
    ("  glyphs:", "  glyfs:", ["small.yaml:3: ", "'glyfs'", "did you mean 'glyphs'?"]),
    ("steps: 60", "stepz: 60", ["small.yaml:13: ", "'stepz'", "did you mean 'steps'?"]),
    ("pairs: 8", "pears: 8", ["small.yaml:9: ", "'pears'", "did you mean 'pairs'?"]),
    ("queries: 2", "queries: 29", ["small.yaml:11: ", "30 images", "1 shots + 29 queries", "glyphs", "has 20"]),
    ("ways: [2]", "ways: [1]", ["small.yaml:10: ", "at least 2"]),
    ("ways: [2]", "ways: [2", ["small.yaml:1", "not valid YAML"]),
    (
        "profiles:\n  smoke:\n    train: {steps: 4}\n",
        "profiles: 3\n",
        ["small.yaml:15: ", "a mapping of profile names"],
    ),
]

WRONG_COMMANDS = [
    (["run", "smal.yaml"], ["there is no suite file smal.yaml", "quickstart"]),
    (["run", "quikstart"], ["no suite 'quikstart'", "did you mean 'quickstart'?"]),
    (["run", "."], ["."]),
    (["run", "../work"], ["is a directory"]),
    (["run", "small.yaml", "--profile", "smok"], ["no profile 'smok'", "did you mean 'smoke'?"]),
    (["run", "small.yaml", "--device", "gpu"], ["--device", "gpu"]),
    (["run", "small.yaml", "--only", "maml"], ["--only maml", "KEY=VALUE"]),
    (["run", "small.yaml", "--only", "algorithm="], ["--only algorithm=", "KEY=VALUE"]),
    (["run", "small.yaml", "--only", "algorithm=protonte"], ["algorithm=protonte", "did you mean 'protonet'?"]),
    (["run", "small.yaml", "--only", "algorith=protonet"], ["algorith=", "did you mean 'algorithm'?"]),
    (["run", "small.yaml", "--only", "shot=5"], ["shot=5", "It has: 1"]),
    (["run", "small.yaml", "--seeds", "a"], ["--seeds a", "whole numbers"]),
    (["run", "small.yaml", "--seeds", ""], ["--seeds", "whole numbers"]),
    (["run", "small.yaml", "--seeds", "1,1"], ["--seeds 1,1", "different"]),
    (["run", "small.yaml", "--seeds", "-1"], ["--seeds -1"]),
    (["run", "small.yaml", "--nonsense"], ["--nonsense"]),
    (["run"], ["SUITE"]),
    (["ruin"], ["ruin"]),
    (["list", "nonsense"], ["nonsense"]),
    (["validate", "smal.yaml"], ["smal.yaml"]),
    (["leaderboard", "nowhere"], ["no directory nowhere", "--output"]),
    (["leaderboard", "."], ["no finished cells in ."]),
    (["leaderboard", ".", "--format", "nonsense"], ["nonsense"]),
    (["data", "prepare", "glyfs"], ["no dataset 'glyfs'", "did you mean 'glyphs'?"]),
]


@pytest.mark.parametrize(("old", "new", "parts"), WRONG_SUITES)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_wrong_suite_is_one_message_and_writes_nothing(
    metabench: Command, command: str, old: str, new: str, parts: list[str]
) -> None:
    assert old in SUITE
    Path("small.yaml").write_text(SUITE.replace(old, new, 1), encoding="utf-8")
    before = everything_below(Path())
    ended = metabench(command, "small.yaml")
    assert_refused(ended, parts)
    assert ended.err.startswith("metabench: small.yaml:")
    assert len(ended.err.splitlines()) == 1
    assert everything_below(Path()) == before


@pytest.mark.parametrize(("arguments", "parts"), WRONG_COMMANDS, ids=lambda value: " ".join(value)[:40])
def test_a_wrong_command_is_explained_and_writes_nothing(
    metabench: Command, arguments: list[str], parts: list[str]
) -> None:
    before = everything_below(Path())
    assert_refused(metabench(*arguments), parts)
    assert everything_below(Path()) == before


def test_a_missing_device_is_refused(metabench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = everything_below(Path())
    assert_refused(metabench("run", "small.yaml", "--device", "cuda"), ["--device cuda", "--device cpu"])
    assert everything_below(Path()) == before


def test_wrong_plugins_are_refused(metabench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METABENCH_PLUGINS", "metabenhc")
    assert_refused(metabench("run", "small.yaml"), ["METABENCH_PLUGINS", "did you mean 'metabench'?"])


def test_a_damaged_record_is_named_and_fresh_replaces_it(metabench: Command) -> None:
    command = ("run", "small.yaml", "--profile", "smoke", "--output", "out", "--only", "algorithm=protonet")
    metabench(*command)
    (path,) = Path("out/cells").glob("*.json")
    path.write_text("{", encoding="utf-8")
    assert_refused(metabench(*command), [str(path), "is damaged"])
    assert_refused(metabench("leaderboard", "out"), [str(path), "is damaged"])
    assert metabench(*command, "--fresh").code == 0


def test_an_output_in_use_is_left_alone(metabench: Command) -> None:
    with Store(Path("out")).locked():
        before = everything_below(Path())
        assert_refused(metabench("run", "small.yaml", "--output", "out"), ["another metabench run", "--output"])
        assert everything_below(Path()) == before
