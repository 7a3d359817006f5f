"""The schema of suites accepts what runs, and refuses misspelt settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from command_line import SUITE, Command
from metabench.planning.suite_file import read_suite
from metabench.registry.manager import PluginManager

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))

Check = Callable[[Any], list[str]]


@pytest.fixture(scope="module")
def check(request: pytest.FixtureRequest) -> Check:
    """Return a function that lists what the schema finds in a suite."""
    from metabench.cli.schema import _schemas
    from metabench.planning.suite_schema import suite_schema

    plugins: PluginManager = request.getfixturevalue("plugins")
    parameters = {
        "datasets": _schemas(plugins.datasets(), plugins.dataset_class),
        "backbones": _schemas(plugins.backbones(), plugins.backbone_class),
        "algorithms": _schemas(plugins.algorithms(), plugins.algorithm_class),
    }
    schema = suite_schema(parameters)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    return lambda suite: [error.message for error in validator.iter_errors(suite)]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_shipped_suite_is_valid(check: Check, path: Path) -> None:
    assert check(read_suite(path).data) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"shots": ["one"]},
        {"shot": [1]},
        {"name": "a b"},
        {"train": None},
        {"train": {"stepz": 3}},
        {"eval": {"episodes": 1}},
        {"algorithms": {"protonet": {"params": {"distanc": "cosine"}}}},
        {"algorithms": {"mine": {"use": "maml", "params": {"inner_lr": "fast"}}}},
        {"algorithms": {"maml": {"params": {"inner_lr": {"grid": []}}}}},
        {"profiles": {"smoke": {"train": {"stepz": 3}}}},
    ],
    ids=str,
)
def test_a_wrong_setting_is_found(check: Check, wrong: dict[str, Any]) -> None:
    suite = yaml.safe_load(SUITE)
    assert check(suite) == []
    assert check({**suite, **wrong})


def test_a_missing_section_is_found_unless_a_profile_may_have_it(check: Check) -> None:
    suite = yaml.safe_load(SUITE)
    del suite["profiles"], suite["train"]
    assert check(suite)
    assert check({**suite, "profiles": {"smoke": {"train": {"steps": 4}}}}) == []


@pytest.mark.parametrize(
    "right",
    [
        {"train": "none"},
        {"version": 2, "superseded_by": "small, v3"},
        {"algorithms": {"maml": {"params": {"inner_lr": {"grid": [0.1, 0.2]}}}}},
        {"algorithms": {"own": {"use": "mine.py:Mine", "params": {"anything": 1}}}},
        {"profiles": {"smoke": {"algorithms": {"siamese": {"params": {"pairs": 4}}}}}},
    ],
    ids=str,
)
def test_forms_that_run_are_accepted(check: Check, right: dict[str, Any]) -> None:
    assert check({**yaml.safe_load(SUITE), **right}) == []


def test_the_command_writes_its_own_file_only(metabench: Command) -> None:
    ended = metabench("schema", "--output", "suite.schema.json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(Path("suite.schema.json").read_text())["title"] == "a suite of metabench"
    Path("mine.json").write_text("{}")
    ended = metabench("schema", "--output", "mine.json")
    assert ended.code == 2
    assert Path("mine.json").read_text() == "{}"
