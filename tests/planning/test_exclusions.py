from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from metabench.errors import MetabenchError
from metabench.planning.cells import Cell
from metabench.planning.exclusions import Exclusion
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, read_suite, resolve
from metabench.planning.suite_text import write_suite_text
from metabench.registry.manager import PluginManager

Plan = Callable[..., list[Cell]]
Complaint = Callable[..., str]

SUITE = """\
name: excluding
datasets:
  glyphs: {}
  more: {use: glyphs}
backbones:
  conv4: {params: {channels: 4}}
algorithms:
  protonet: {}
  maml: {params: {inner_lr: {grid: [.1, .2]}}}
ways: [2]
shots: [1, 5]
queries: 4
seeds: [0, 1]
train: {steps: 10}
eval: {episodes: 20}
exclude:
  - {algorithm: maml, shot: 5}
  - {algorithm: protonet, dataset: more, seed: 1}
profiles:
  all:
    exclude: []
  single:
    shots: [1]
  other:
    shots: [1]
    exclude: [{dataset: more}, {seed: 0}, {algorithm: protonet}, {algorithm: "maml[inner_lr=0.1]"}]
"""


@pytest.fixture
def plan(suite_file: Callable[[str], SuiteFile], plugins: PluginManager) -> Plan:
    return lambda text=SUITE, profile=None: make_plan(*resolve(suite_file(text), profile), plugins)


@pytest.fixture
def complaint(plan: Plan) -> Complaint:
    """Return a function that returns a suite's error message after the file name."""

    def write(text: str, profile: str | None = None) -> str:
        with pytest.raises(MetabenchError) as caught:
            plan(text, profile)
        return str(caught.value).partition("suite.yaml")[2]

    return write


def test_cells_that_match_all_keys_of_a_pattern_are_not_planned(plan: Plan) -> None:
    every, cells = plan(profile="all"), plan()
    excluded = [cell for cell in every if cell.id not in {other.id for other in cells}]
    assert len(every) == 24
    assert len(cells) == 24 - 8 - 2
    for cell in excluded:
        name, dataset = cell.algorithm.name, cell.dataset.label
        assert (name, cell.shape.shot) == ("maml", 5) or (name, dataset, cell.seed) == ("protonet", "more", 1)


def test_a_profile_replaces_the_excluded_cells(plan: Plan) -> None:
    (cell,) = plan(profile="other")
    assert (cell.algorithm.label, cell.dataset.label, cell.seed) == ("maml[inner_lr=0.2]", "glyphs", 1)


def test_the_keys_are_those_of_only(plan: Plan) -> None:
    assert set(Exclusion.model_fields) == set(plan()[0].labels)


def test_excluded_cells_may_need_more_images_than_there_are(plan: Plan, complaint: Complaint) -> None:
    text = SUITE.replace("shots: [1, 5]", "shots: [1, 17]").replace("shot: 5", "shot: 17")
    assert "21 images of a class asked of 'glyphs'" in complaint(text)
    excluding = text.replace("exclude:\n", "exclude:\n  - {algorithm: protonet, shot: 17}\n")
    assert {cell.shape.shot for cell in plan(excluding)} == {1}


def test_a_stored_suite_excludes_the_same_cells(
    suite_file: Callable[[str], SuiteFile], plugins: PluginManager, tmp_path: Path
) -> None:
    suite, places = resolve(suite_file(SUITE))
    suite = suite.with_seeds([0, 3])
    stored = tmp_path / "stored.yaml"
    stored.write_text(write_suite_text(suite.model_dump(mode="json", exclude={"profile"})), encoding="utf-8")
    again = make_plan(*resolve(read_suite(stored)), plugins)
    assert [cell.id for cell in again] == [cell.id for cell in make_plan(suite, places, plugins)]


def test_with_other_seeds_a_pattern_of_a_seed_excludes_nothing(
    suite_file: Callable[[str], SuiteFile], plugins: PluginManager
) -> None:
    suite, places = resolve(suite_file(SUITE))
    cells = make_plan(suite.with_seeds([3]), places, plugins)
    assert len([cell for cell in cells if cell.algorithm.label == "protonet"]) == 4


@pytest.mark.parametrize(
    ("old", "new", "start", "parts"),
    [
        ("{algorithm: maml,", "{algoritm: maml,", ":17: exclude.0.algoritm: ", ["did you mean 'algorithm'?", "seed"]),
        ("{algorithm: maml,", "{algorithm: mamll,", ":17: exclude.0.algorithm: ", ["no cell", "did you mean 'maml'?"]),
        (
            "algorithm: maml,",
            '"algorithm": "maml[inner_lr=0.3]",',
            ":17: exclude.0.algorithm: ",
            ["maml[inner_lr=0.2]"],
        ),
        ("dataset: more,", "dataset: moor,", ":18: exclude.1.dataset: ", ["did you mean 'more'?"]),
        ("seed: 1", "backbone: conv5", ":18: exclude.1.backbone: ", ["did you mean 'conv4'?"]),
        ("shot: 5", "shot: 10", ":17: exclude.0.shot: ", ["no shot '10'", "It has: 1, 5"]),
        ("shot: 5", "way: 5", ":17: exclude.0.way: ", ["no way '5'", "It has: 2"]),
        ("seed: 1", "seed: 7", ":18: exclude.1.seed: ", ["no seed '7'", "It has: 0, 1"]),
        ("shot: 5", "shot: [5]", ":17: exclude.0.shot: ", ["valid integer, not [5]"]),
        ("shot: 5", "shot: true", ":17: exclude.0.shot: ", ["valid integer, not True"]),
        ("{algorithm: maml, shot: 5}", "{}", ":17: exclude.0: ", ["at least one of the keys algorithm, dataset"]),
        ("{algorithm: maml, shot: 5}", "{algorithm: }", ":17: exclude.0: ", ["at least one of the keys"]),
        ("{algorithm: maml, shot: 5}", "maml", ":17: exclude.0: ", ["not 'maml'"]),
        ("{algorithm: maml, shot: 5}", "{dataset: {grid: [more]}}", ":17: exclude.0.dataset: ", ["a grid is"]),
        ("{algorithm: maml, shot: 5}", "{way: 2}", ":16: exclude: ", ["leaves no cell"]),
    ],
)
def test_a_wrong_pattern_is_reported_with_its_line(
    complaint: Complaint, old: str, new: str, start: str, parts: list[str]
) -> None:
    assert old in SUITE
    message = complaint(SUITE.replace(old, new, 1))
    assert message.startswith(start)
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message


def test_a_pattern_that_matches_no_cell_of_a_profile_names_the_profile(complaint: Complaint) -> None:
    message = complaint(SUITE, "single")
    assert message.startswith(
        ":17: exclude.0.shot: it matches no cell: the suite with profile 'single' has no shot '5'"
    )


def test_the_parameters_of_an_excluded_pair_are_not_checked(plan: Plan) -> None:
    text = SUITE.replace("{grid: [.1, .2]}}", "0.1}, backbone: {channels: 5}")
    with pytest.raises(MetabenchError, match="unknown key 'colour'"):
        plan(text.replace("channels: 5", "colour: 5"), "all")
    allowed = text.replace("channels: 5", "colour: 5").replace(
        "exclude: []", "exclude: [{algorithm: maml, backbone: conv4}]"
    )
    assert {cell.algorithm.label for cell in plan(allowed, "all")} == {"protonet"}
