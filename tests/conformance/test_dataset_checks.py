"""Each check of datasets, against a dataset that breaks just that rule."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kit import failures
from metabench.cli import cli
from metabench.conformance.checks import NotConforming, run
from metabench.conformance.datasets import CHECKS, Subject
from metabench.data.packing import DataRoots
from metabench.errors import DataError
from metabench.testing import DatasetChecks

FILE = Path(__file__).parent / "broken_datasets.py"

#: The checks that need a pack, and those that need sound splits.
NEED_PACK = set(CHECKS) - {"parameters", "pack"}
NEED_SPLITS = {"sizes", "disjoint", "episodes"}

#: The check, the class that fails it, what the message says, and the checks that cannot pass without it.
BROKEN: list[tuple[str, str, str, set[str]]] = [
    ("parameters", "Loose", "takes a parameter that it does not know", set()),
    ("pack", "Floating", "pack(): images must be uint8 [n, C, H, W]", NEED_PACK),
    ("pack", "Crashing", "failed in pack(): KeyError: 'alphabet'", NEED_PACK),
    ("pack repeats", "Random", "two packs of the same raw data and parameters differ", set()),
    ("splits", "WithoutVal", "has no split val", NEED_SPLITS),
    ("splits", "PercentMean", "mean must be between 0 and 1", NEED_SPLITS),
    ("splits", "ShortGroups", "groups must be whole numbers [4]", NEED_SPLITS),
    ("sizes", "Boasting", "the size must be as sizes() says", set()),
    ("disjoint", "SharedClass", "has 2 classes in more than one split", set()),
    ("disjoint", "SharedImage", "has 1 image in more than one split", set()),
    ("split repeats", "Shuffling", "two calls of split() differ in the images of 'val'", set()),
    ("split repeats", "Growing", "two calls of split() differ in the mean of 'train'", set()),
    ("split repeats", "Scribbling", "split() changes the pack", set()),
    ("split parameters", "InvertedInPack", "the pack changes with its split_parameters (inverted: True, ", set()),
    ("split parameters", "OrderedInPack", "there are no reversed images (with other split_parameters", set()),
    ("split parameters", "TitledInPack", "title: 'names'", set()),
    ("split parameters", "CountedInPack", "first: 1", set()),
    ("split parameters", "Misspelt", "split_parameters names 'invertd', which is no parameter", set()),
    ("episodes", "OneClass", "the split 'val' has 1 classes, 1 of them with two images or more", set()),
    ("episodes", "OneImage", "the split 'test' has 2 classes, 1 of them with two images or more", set()),
]


@pytest.fixture
def subject(tmp_path: Path) -> Callable[..., Subject]:
    """Return a function that makes a subject of a class, with a cache of its own."""

    def make(cls: str, **changes: Any) -> Subject:
        return Subject(f"{FILE}:{cls}", DataRoots((), tmp_path / "cache", download=False), **changes)

    return make


@pytest.mark.parametrize(("check", "cls", "message", "dependent"), BROKEN)
def test_a_broken_rule_is_seen_by_its_check_and_by_those_that_need_it(
    subject: Callable[..., Subject], check: str, cls: str, message: str, dependent: set[str]
) -> None:
    found = failures(CHECKS, subject(cls))
    assert message in found.pop(check)
    assert set(found) == dependent


def test_every_check_has_a_dataset_that_breaks_it() -> None:
    assert {check for check, *_ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize("cls", ["Sound", "Silent", "SharedOnPurpose"])
def test_a_sound_dataset_passes(subject: Callable[..., Subject], cls: str) -> None:
    assert failures(CHECKS, subject(cls)) == {}


def test_given_parameters_are_those_that_are_checked(subject: Callable[..., Subject]) -> None:
    assert failures(CHECKS, subject("Sound", params={"inverted": True, "order": "reversed"})) == {}
    with pytest.raises(NotConforming, match="no reversed images"):
        run(CHECKS["split parameters"], subject("OrderedInPack", params={"inverted": True}))


def test_missing_raw_data_is_no_broken_rule(subject: Callable[..., Subject]) -> None:
    with pytest.raises(DataError, match="put them into METABENCH_DATA/missing") as error:
        run(CHECKS["pack"], subject("Missing"))
    assert not isinstance(error.value, NotConforming)


def test_glyphs_keep_all_rules(tmp_path: Path) -> None:
    assert failures(CHECKS, Subject("glyphs", DataRoots((), tmp_path))) == {}


@pytest.mark.slow
def test_omniglot_keeps_all_rules(tmp_path: Path) -> None:
    roots = DataRoots.from_environment(os.environ)
    if not any((source / "omniglot").is_dir() for source in roots.sources):
        pytest.skip("real Omniglot not found: set METABENCH_DATA to the folder that holds omniglot/")
    assert failures(CHECKS, Subject("omniglot", replace(roots, cache=tmp_path, download=False))) == {}


class TestThreeLines(DatasetChecks):
    """The kit as a plugin's author uses it."""

    dataset = f"{FILE}:Sound"


# ------------------------------------------------------------------------------------------- command line


def test_the_command_names_what_is_broken_and_leaves_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path))
    result = CliRunner().invoke(cli, ["plugin", "check", f"{FILE}:SharedImage"], standalone_mode=False)
    assert result.return_value == 1
    assert "FAILED  disjoint: Unless it is `overlapping`, splits share neither classes nor images." in result.output
    assert result.output.splitlines()[-1] == f"{len(CHECKS) - 1} of {len(CHECKS)} checks passed"
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_where_raw_data_are_missing() -> None:
    result = CliRunner().invoke(cli, ["plugin", "check", f"{FILE}:Missing"])
    assert isinstance(result.exception, DataError)
    assert "METABENCH_DATA/missing" in str(result.exception)
