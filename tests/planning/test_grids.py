from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from metabench.errors import MetabenchError, UsageError
from metabench.filters import parse_filters, select
from metabench.planning.cells import Cell
from metabench.planning.grids import MAX_ENTRIES
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, read_suite, resolve
from metabench.planning.suite_text import write_suite_text
from metabench.registry.manager import PluginManager

Plan = Callable[..., list[Cell]]
Complaint = Callable[..., str]

SUITE = """\
name: grids
datasets:
  glyphs: {}
backbones:
  conv4: {params: {channels: 4}}
algorithms:
  protonet: {}
  maml:
    params: {inner_lr: {grid: [.1, .2, .4]}, inner_steps: 2}
ways: [2]
shots: [1]
queries: 4
train: {steps: 10}
eval: {episodes: 20}
profiles:
  short:
    algorithms:
      maml: {params: {inner_lr: {grid: [.3]}}}
  one:
    algorithms:
      maml: {params: {inner_lr: .5}}
  wrong:
    algorithms:
      protonet:
        params: {lr: {grid: [.1, -1]}}
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


def labels(cells: list[Cell]) -> list[str]:
    return [cell.algorithm.label for cell in cells]


# ---------------------------------------------------------------------------------------------- entries


def test_each_value_of_a_grid_is_an_entry_with_cells_of_its_own(plan: Plan) -> None:
    cells = plan()
    assert labels(cells) == ["protonet", *(f"maml[inner_lr={value}]" for value in (0.1, 0.2, 0.4))]
    assert [cell.algorithm.params["inner_lr"] for cell in cells[1:]] == [0.1, 0.2, 0.4]
    assert {cell.algorithm.name for cell in cells[1:]} == {"maml"}
    assert {cell.algorithm.params["inner_steps"] for cell in cells[1:]} == {2}
    assert len({cell.id for cell in cells}) == 4


def test_several_grids_make_the_product(plan: Plan) -> None:
    text = SUITE.replace(
        "inner_steps: 2}", "inner_steps: {grid: [1, 2]}}\n    backbone: {norm: {grid: [batch, support]}}"
    )
    cells = plan(text)[1:]
    assert len(cells) == len({cell.id for cell in cells}) == 12
    assert labels(cells)[:2] == [
        f"maml[inner_lr=0.1,inner_steps=1,backbone.norm={norm}]" for norm in ("batch", "support")
    ]
    assert [cell.backbone.params["norm"] for cell in cells[:2]] == ["batch", "support"]
    assert {cell.backbone.label for cell in cells} == {"conv4"}


def test_datasets_and_backbones_may_have_grids(plan: Plan) -> None:
    text = SUITE.replace("channels: 4", "channels: {grid: [4, 8]}").replace(
        "glyphs: {}", "mine: {use: omniglot, params: {image_size: {grid: [20, 28]}}}"
    )
    cells = plan(text, "one")
    assert {cell.backbone.label: cell.backbone.params["channels"] for cell in cells} == {
        "conv4[channels=4]": 4,
        "conv4[channels=8]": 8,
    }
    assert {(cell.dataset.label, cell.dataset.name) for cell in cells} == {
        ("mine[image_size=20]", "omniglot"),
        ("mine[image_size=28]", "omniglot"),
    }


@pytest.mark.parametrize(
    ("values", "shown"),
    [("[true, false]", ["true", "false"]), ("[1e-5, 1]", ["1e-05", "1"]), ("['a b', \"a,b]\"]", ['"a b"', '"a,b]"'])],
)
def test_a_label_shows_values_as_in_yaml(suite_file: Callable[[str], SuiteFile], values: str, shown: list[str]) -> None:
    suite, _ = resolve(suite_file(SUITE.replace("[.1, .2, .4]", values)))
    assert list(suite.algorithms)[1:] == [f"maml[inner_lr={value}]" for value in shown]


def test_a_profile_replaces_the_values_of_a_grid(plan: Plan) -> None:
    assert labels(plan(profile="short")) == ["protonet", "maml[inner_lr=0.3]"]
    (_, maml) = plan(profile="one")
    assert (maml.algorithm.label, maml.algorithm.params["inner_lr"]) == ("maml", 0.5)


def test_a_stored_suite_has_the_same_cells(
    suite_file: Callable[[str], SuiteFile], plugins: PluginManager, tmp_path: Path
) -> None:
    suite, places = resolve(suite_file(SUITE))
    stored = tmp_path / "stored.yaml"
    stored.write_text(write_suite_text(suite.model_dump(mode="json", exclude={"profile"})), encoding="utf-8")
    again = make_plan(*resolve(read_suite(stored)), plugins)
    assert [cell.id for cell in again] == [cell.id for cell in make_plan(suite, places, plugins)]


def test_the_largest_suite_of_grids_can_be_stored_and_read(
    suite_file: Callable[[str], SuiteFile], tmp_path: Path
) -> None:
    suite, _ = resolve(suite_file(SUITE.replace("[.1, .2, .4]", str(list(range(1, MAX_ENTRIES + 1))))))
    stored = tmp_path / "stored.yaml"
    stored.write_text(write_suite_text(suite.model_dump(mode="json", exclude={"profile"})), encoding="utf-8")
    assert resolve(read_suite(stored))[0] == suite


# ------------------------------------------------------------------------------------------------- only


@pytest.mark.parametrize(
    ("only", "selected"),
    [
        ("algorithm=maml", ["maml[inner_lr=0.1]", "maml[inner_lr=0.2]", "maml[inner_lr=0.4]"]),
        ("algorithm=maml[inner_lr=0.2]", ["maml[inner_lr=0.2]"]),
        ("algorithm=maml[inner_lr=0.2],protonet", ["protonet", "maml[inner_lr=0.2]"]),
    ],
)
def test_only_selects_an_entry_or_one_value_of_its_grid(plan: Plan, only: str, selected: list[str]) -> None:
    assert labels(select(plan(), parse_filters([only]))) == selected


def test_only_selects_one_point_of_several_grids(plan: Plan) -> None:
    cells = plan(SUITE.replace("inner_steps: 2", "inner_steps: {grid: [1, 2]}"))
    selected = select(cells, parse_filters(["algorithm=maml[inner_lr=0.1,inner_steps=2],protonet"]))
    assert labels(selected) == ["protonet", "maml[inner_lr=0.1,inner_steps=2]"]


@pytest.mark.parametrize(
    ("values", "parsed"),
    [
        ("a,b", ["a", "b"]),
        ("a[x=[1,2],y=[3,4]],b", ["a[x=[1,2],y=[3,4]]", "b"]),
        ("a[b,c", ["a[b", "c"]),
        ("a]b,c[d", ["a]b", "c[d"]),
    ],
)
def test_commas_within_matching_brackets_belong_to_a_label(values: str, parsed: list[str]) -> None:
    assert parse_filters([f"algorithm={values}"]) == {"algorithm": parsed}


@pytest.mark.parametrize(
    ("only", "parts"),
    [
        ("algorithm=mam", ["no such algorithm (did you mean 'maml'?)", "maml[inner_lr=0.1], maml[inner_lr=0.2]"]),
        ("algorithm=maml[inner_lr=0.3]", ["did you mean 'maml[inner_lr=0."]),
        ("algorithm=maml[inner_lr=0.1", ["did you mean 'maml[inner_lr=0.1]'?"]),
        ("algorithm=proto", ["no such algorithm"]),
    ],
)
def test_only_names_the_nearest_label_of_a_grid(plan: Plan, only: str, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        select(plan(), parse_filters([only]))
    assert [part for part in parts if part not in str(caught.value)] == []


def test_only_lists_the_first_labels_of_many(plan: Plan) -> None:
    cells = plan(SUITE.replace("[.1, .2, .4]", str(list(range(1, 101)))))
    with pytest.raises(UsageError, match=r"… \(101 in all\)$"):
        select(cells, {"algorithm": ["nothing"]})


# --------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("old", "new", "start", "part"),
    [
        ("[.1, .2, .4]", "[]", ":9: algorithms.maml.params.inner_lr.grid: ", "at least one value"),
        ("[.1, .2, .4]", "0.1", ":9: algorithms.maml.params.inner_lr.grid: ", "a grid is a list"),
        ("[.1, .2, .4]", "{a: 1}", ":9: algorithms.maml.params.inner_lr.grid: ", "a grid is a list"),
        ("[.1, .2, .4]", "[.1, .1]", ":9: algorithms.maml.params.inner_lr.grid.1: ", "0.1 twice"),
        ("[.1, .2, .4]", "[1, .2, 1.0]", ":9: algorithms.maml.params.inner_lr.grid.2: ", "1.0 twice"),
        ("[.1, .2, .4]", "[.1, {grid: [1]}]", ":9: algorithms.maml.params.inner_lr.grid.1: ", "whole value"),
        ("[.1, .2, .4]", "[.1, -2]", ":9: algorithms.maml.params.inner_lr.grid.1: ", "greater than 0, not -2"),
        ("inner_lr: {grid", "iner_lr: {grid", ":9: algorithms.maml.params.iner_lr", "did you mean 'inner_lr'?"),
        ("{grid: [.1, .2, .4]}", "{a: {grid: [1]}}", ":9: algorithms.maml.params.inner_lr.a: ", "whole value"),
        ("{grid: [.1, .2, .4]}", "[{grid: [1]}]", ":9: algorithms.maml.params.inner_lr.0: ", "whole value"),
        ("protonet: {}", "protonet: {grid: [1, 2]}", ":7: algorithms.protonet: ", "whole value"),
        ("protonet: {}", "protonet: {use: {grid: [a, b]}}", ":7: algorithms.protonet.use: ", "whole value"),
        ("protonet: {}", "protonet: {params: {grid: [1, 2]}}", ":7: algorithms.protonet.params.grid: ", "unknown key"),
        (
            "protonet: {}",
            "protonet: {train: {steps: {grid: [1, 2]}}}",
            ":7: algorithms.protonet.train.steps: ",
            "whole",
        ),
        ("{steps: 10}", "{steps: {grid: [1, 2]}}", ":13: train.steps: ", "whole value"),
        ("ways: [2]", "ways: {grid: [2, 5]}", ":10: ways: ", "whole value"),
        ("ways: [2]", "ways: [{grid: [2, 5]}]", ":10: ways.0: ", "whole value"),
        ("protonet: {}", '"maml[inner_lr=0.2]": {use: maml}', ":8: algorithms.maml: ", "'maml[inner_lr=0.2]'"),
        ("protonet: {}", "proto: {params: {lr: {grid: [1, 2]}}}", ":7: algorithms.proto: ", "did you mean 'protonet'?"),
        ("[.1, .2, .4]", str(list(range(1, 402))), ":8: algorithms.maml: ", "401 entries up to here"),
        ("protonet: {}", f"protonet: {{params: {{lr: {{grid: {[*range(1, 399)]}}}}}}}", ":8: algorithms.maml: ", "401"),
        ("[.1, .2, .4]", f"[{'x' * 200}]", ":8: algorithms.maml", "at most 160 characters"),
    ],
)
def test_a_wrong_grid_is_reported_with_its_line(
    complaint: Complaint, old: str, new: str, start: str, part: str
) -> None:
    assert old in SUITE
    message = complaint(SUITE.replace(old, new, 1))
    assert message.startswith(start)
    assert part in message
    assert "\n" not in message


def test_a_wrong_value_in_a_grid_of_a_profile_is_reported_with_its_line(complaint: Complaint) -> None:
    assert complaint(SUITE, "wrong").startswith(":25: profiles.wrong.algorithms.protonet.params.lr.grid.1: ")
