from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch

from metabench.api import Split
from metabench.data.sampler import EpisodeShape
from metabench.errors import CellFailed, DataError, MetabenchError, UsageError
from metabench.filters import select
from metabench.planning.cells import Cell
from metabench.planning.fitting import check_cell
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.registry.manager import PluginManager

Read = Callable[[str], SuiteFile]
Plan = Callable[[str], list[Cell]]

BASE = """\
name: base
datasets:
  glyphs: {}
backbones:
  conv4: {params: {channels: 4}}
algorithms:
  protonet: {}
  maml:
    params: {inner_steps: 2}
ways: [5]
shots: [1]
queries: 4
train: {steps: 10}
eval: {episodes: 20}
"""


@pytest.fixture
def plan(suite_file: Read, plugins: PluginManager) -> Plan:
    return lambda text: make_plan(*resolve(suite_file(text)), plugins)


@pytest.fixture
def complaint(plan: Plan) -> Callable[[str], str]:
    """Return a function that returns a suite's error message after the file name."""

    def write(text: str) -> str:
        with pytest.raises(MetabenchError) as caught:
            plan(text)
        return str(caught.value).partition("suite.yaml")[2]

    return write


Complaint = Callable[[str], str]


# ----------------------------------------------------------------------------------------------- cells


def test_the_cells_are_the_product_of_all_settings(plan: Plan) -> None:
    text = BASE.replace("ways: [5]", "ways: [2, 5]\nseeds: [0, 7, 3]").replace("shots: [1]", "shots: [1, 2]")
    text = text.replace("backbones:\n", "backbones:\n  big: {use: conv4, params: {channels: 8}}\n")
    cells = plan(text)
    planned = [
        (cell.backbone.label, cell.shape.way, cell.shape.shot, cell.algorithm.label, cell.seed) for cell in cells
    ]
    expected = product(["big", "conv4"], [2, 5], [1, 2], ["protonet", "maml"], [0, 7, 3])
    assert sorted(planned) == sorted(expected)
    assert {cell.backbone.params["channels"] for cell in cells if cell.backbone.label == "big"} == {8}
    assert {cell.backbone.name for cell in cells} == {"conv4"}


def test_a_cell_holds_all_parameters_defaults_included(plan: Plan) -> None:
    protonet, maml = plan(BASE)
    assert protonet.algorithm.params["lr"] == 0.001
    assert maml.algorithm.params["inner_steps"] == 2
    assert maml.algorithm.params["first_order"] is False
    assert protonet.backbone.params == {"channels": 4, "norm": "running", "downsample": "pool"}
    assert protonet.shape == EpisodeShape(5, 1, 4)


def test_one_algorithm_twice_under_two_labels(plan: Plan) -> None:
    text = BASE.replace("  protonet: {}\n", "  a: {use: protonet}\n  b: {use: protonet, params: {lr: 0.5}}\n")
    cells = plan(text)
    assert [(cell.algorithm.label, cell.algorithm.name) for cell in cells[:2]] == [("a", "protonet"), ("b", "protonet")]
    assert cells[1].algorithm.params["lr"] == 0.5


# ------------------------------------------------------------------------------------------- identities

CHANGES = [
    ("protonet: {}", "protonet: {params: {lr: 0.002}}"),
    ("protonet: {}", "protonet: {train: {way: 20}}"),
    ("protonet: {}", "protonet: {backbone: {norm: batch}}"),
    ("protonet: {}", "other: {use: protonet}"),
    ("channels: 4", "channels: 5"),
    ("ways: [5]", "ways: [4]"),
    ("shots: [1]", "shots: [2]"),
    ("queries: 4", "queries: 5"),
    ("ways: [5]", "ways: [5]\nseeds: [1]"),
    ("{steps: 10}", "{steps: 11}"),
    ("{steps: 10}", "{steps: 10, meta_batch: 2}"),
    ("{steps: 10}", "{steps: 10, validate_every: 5}"),
    ("{steps: 10}", "{steps: 10, validation_episodes: 5}"),
    ("{steps: 10}", "{steps: 10, queries: 5}"),
    ("{steps: 10}", "{steps: 10, shot: 5}"),
    ("{episodes: 20}", "{episodes: 20, seed: 1}"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_a_setting_that_changes_the_result_changes_the_id(plan: Plan, old: str, new: str) -> None:
    assert old in BASE
    assert plan(BASE)[0].id != plan(BASE.replace(old, new))[0].id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{episodes: 20}", "{episodes: 20, batch: 3}"),
        ("name: base", "name: other\ndescription: changed"),
        ("protonet: {}", "protonet: {params: {lr: 0.001}}"),
        ("protonet: {}", "protonet: {train: {way: 5}}"),
        ("protonet: {}", "protonet: {use: protonet}"),
        ("{steps: 10}", "{steps: 10, validate_every: 70}"),
        ("  maml:\n    params: {inner_steps: 2}\n", ""),
        ("shots: [1]", "shots: [1, 3]"),
        ("{episodes: 20}", "{episodes: 20, inductive_episodes: 2}"),
        ("{episodes: 20}", "{episodes: 20, until: {ci95: 0.01, at_most: 40}, time_limit: 9, batch: 3}"),
        ("{steps: 10}", "{steps: 10, time_limit: 9}"),
    ],
)
def test_a_setting_that_does_not_change_the_result_keeps_the_id(plan: Plan, old: str, new: str) -> None:
    assert old in BASE
    assert plan(BASE)[0].id == plan(BASE.replace(old, new))[0].id


#: The training shape is set, and so independent of the test shape.
SHARED = BASE.replace("{steps: 10}", "{steps: 10, shot: 5, queries: 5}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("shots: [1]", "shots: [2]"),
        ("queries: 4", "queries: 3"),
        ("protonet: {}", "other: {use: protonet}"),
        ("{episodes: 20}", "{episodes: 20, seed: 1}"),
    ],
)
def test_cells_that_differ_only_in_their_test_share_a_training(plan: Plan, old: str, new: str) -> None:
    assert old in SHARED
    one, other = plan(SHARED)[0], plan(SHARED.replace(old, new))[0]
    assert one.id != other.id
    assert one.training.id == other.training.id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("protonet: {}", "protonet: {params: {lr: 0.002}}"),
        ("protonet: {}", "protonet: {backbone: {norm: batch}}"),
        ("channels: 4", "channels: 5"),
        ("ways: [5]", "ways: [4]"),
        ("ways: [5]", "ways: [5]\nseeds: [1]"),
        ("steps: 10", "steps: 11"),
        ("steps: 10", "steps: 10, meta_batch: 2"),
        ("steps: 10", "steps: 10, validate_every: 5"),
        ("steps: 10", "steps: 10, validation_episodes: 5"),
        ("shot: 5", "shot: 4"),
        ("queries: 5", "queries: 6"),
        ("steps: 10", "steps: 10, validation_seed: 1"),
        ("eval:", "precision: bf16\neval:"),
    ],
)
def test_cells_that_differ_in_training_or_validation_share_no_training(plan: Plan, old: str, new: str) -> None:
    assert old in SHARED
    assert plan(SHARED)[0].training.id != plan(SHARED.replace(old, new))[0].training.id


def test_cells_whose_training_shape_follows_the_test_share_no_training(plan: Plan) -> None:
    cells = plan(BASE.replace("shots: [1]", "shots: [1, 2]"))
    assert len({cell.training.id for cell in cells}) == len(cells) == 4


def test_ids_are_unique_and_stable(plan: Plan) -> None:
    text = BASE.replace("ways: [5]", "ways: [2, 5]\nseeds: [0, 1]").replace("shots: [1]", "shots: [1, 2]")
    ids = [cell.id for cell in plan(text)]
    assert len(set(ids)) == len(ids) == 16
    assert ids == [cell.id for cell in plan(text)]
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in ids)


# --------------------------------------------------------------------------------------------- overrides


def test_an_algorithm_overrides_training_and_backbone_only_for_itself(plan: Plan) -> None:
    text = BASE.replace(
        "    params: {inner_steps: 2}",
        "    train: {steps: 3, meta_batch: 4, queries: 6, shot: 2, validate_every: 2, validation_episodes: 7}\n"
        "    backbone: {norm: batch}",
    )
    protonet, maml = plan(text)
    schedule = maml.training.schedule
    assert (schedule.steps, schedule.batch, schedule.shape) == (3, 4, EpisodeShape(5, 2, 6))
    assert (schedule.validate_every, schedule.validation_episodes) == (2, 7)
    assert maml.backbone.params == {"channels": 4, "norm": "batch", "downsample": "pool"}
    assert maml.shape == protonet.shape == EpisodeShape(5, 1, 4)
    schedule = protonet.training.schedule
    assert (schedule.steps, schedule.batch, schedule.shape) == (10, 1, EpisodeShape(5, 1, 4))
    assert protonet.backbone.params["norm"] == "running"


def test_the_training_shape_defaults_to_the_test_shape(plan: Plan) -> None:
    text = BASE.replace("ways: [5]", "ways: [2, 5]").replace("{steps: 10}", "{steps: 10, shot: 3}")
    assert [cell.training.schedule.shape for cell in plan(text)[::2]] == [EpisodeShape(2, 3, 4), EpisodeShape(5, 3, 4)]


def test_a_short_training_is_validated_at_its_end(plan: Plan) -> None:
    assert plan(BASE)[0].training.schedule.validate_every == 10


# ------------------------------------------------------------------------------------------------ select


def test_only_selects(plan: Plan) -> None:
    cells = plan(BASE.replace("shots: [1]", "shots: [1, 2]\nseeds: [0, 1]"))
    assert len(select(cells, {})) == 8
    assert {cell.algorithm.label for cell in select(cells, {"algorithm": ["maml"]})} == {"maml"}
    selected = select(cells, {"algorithm": ["maml", "protonet"], "shot": ["2"], "seed": ["1"]})
    assert [(cell.algorithm.label, cell.shape.shot, cell.seed) for cell in selected] == [
        ("protonet", 2, 1),
        ("maml", 2, 1),
    ]


@pytest.mark.parametrize(
    ("only", "parts"),
    [
        ({"algorithms": ["maml"]}, ["algorithms", "did you mean 'algorithm'?", "backbone, trained_on, way"]),
        ({"algorithm": ["mamll"]}, ["mamll", "did you mean 'maml'?", "maml, protonet"]),
        ({"algorithm": ["maml", "protonte"]}, ["did you mean 'protonet'?"]),
        ({"shot": ["5"]}, ["shot=5", "It has: 1"]),
        ({"backbone": [""]}, ["conv4"]),
    ],
)
def test_only_refuses_labels_that_the_suite_lacks(plan: Plan, only: dict[str, list[str]], parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        select(plan(BASE), only)
    message = str(caught.value)
    assert message.startswith("--only ")
    assert all(part in message for part in parts)


# ---------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("old", "new", "start", "parts"),
    [
        ("protonet:", "protonte:", ":7: algorithms.protonte: ", ["'protonte'", "did you mean 'protonet'?", "siamese"]),
        ("  maml:\n", "  mine:\n    use: mamll\n", ":9: algorithms.mine.use: ", ["did you mean 'maml'?"]),
        ("glyphs:", "glyfs:", ":3: datasets.glyfs: ", ["did you mean 'glyphs'?"]),
        ("conv4:", "conv5:", ":5: backbones.conv5: ", ["did you mean 'conv4'?"]),
        ("inner_steps", "iner_steps", ":9: algorithms.maml.params.iner_steps: ", ["did you mean 'inner_steps'?"]),
        ("inner_steps: 2", "inner_steps: 0", ":9: algorithms.maml.params.inner_steps: ", ["greater than 0, not 0"]),
        ("inner_steps: 2", "inner_lr: fast", ":9: algorithms.maml.params.inner_lr: ", ["valid number, not 'fast'"]),
        ("inner_steps: 2", "inner_lr: .nan", ":9: algorithms.maml.params.inner_lr: ", ["finite"]),
        ("inner_steps: 2", "inner_lr: .inf", ":9: algorithms.maml.params.inner_lr: ", ["finite"]),
        ("channels", "chanels", ":5: backbones.conv4.params.chanels: ", ["did you mean 'channels'?"]),
        ("glyphs: {}", "glyphs: {params: {x: 1}}", ":3: datasets.glyphs.params.x: ", ["unknown key 'x'"]),
        ("protonet: {}", "protonet: {backbone: {norn: batch}}", ":7: algorithms.protonet.backbone.norn: ", ["'norm'?"]),
        ("protonet: {}", "protonet: {backbone: {norm: bach}}", ":7: algorithms.protonet.backbone.norm: ", ["'batch'"]),
        # glyphs: 200, 50 and 100 classes of 20 images
        ("ways: [5]", "ways: [5, 51]", ":10: ways.1: ", ["51 ways", "glyphs", "val", "50 classes"]),
        ("shots: [1]", "shots: [1, 17]", ":11: shots.1: ", ["21 images", "17 shots + 4 queries", "has 20"]),
        ("queries: 4", "queries: 29", ":11: shots.0: ", ["30 images", "1 shots + 29 queries", "has 20"]),
        ("protonet: {}", "protonet: {train: {way: 201}}", ":7: algorithms.protonet.train: ", ["201 ways", "200 class"]),
        ("{steps: 10}", "{steps: 1, way: 201}", ":13: train: ", ["201 ways", "train split has 200 classes"]),
        ("{steps: 10}", "{steps: 1, queries: 20}", ":13: train: ", ["21 images", "1 shots + 20 queries"]),
    ],
)
def test_a_mistake_is_reported_with_its_line(
    complaint: Complaint, old: str, new: str, start: str, parts: list[str]
) -> None:
    assert old in BASE
    message = complaint(BASE.replace(old, new, 1))
    assert message.startswith(start)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_episodes_may_use_all_classes_and_images_of_a_split(plan: Plan) -> None:
    assert plan(BASE.replace("ways: [5]", "ways: [50]").replace("shots: [1]", "shots: [16]"))


def test_loaded_data_is_checked_too(plan: Plan) -> None:
    def split(*sizes: int) -> Split:
        offsets = torch.tensor([0, *sizes]).cumsum(0)
        return Split(torch.zeros(sum(sizes), 1, 1, 1, dtype=torch.uint8), offsets, list("abcdefghi"[: len(sizes)]))

    cell = plan(BASE)[0]
    enough = dict.fromkeys(("train", "val", "test"), split(5, 5, 5, 5, 5))
    check_cell(cell, {"glyphs": enough})
    with pytest.raises(CellFailed, match=r"^5 ways asked of 'glyphs', whose test split has 4 classes"):
        check_cell(cell, {"glyphs": {**enough, "test": split(5, 5, 5, 5)}})
    with pytest.raises(CellFailed, match=r"^5 images of a class asked of 'glyphs' .*train split has at most 4: "):
        check_cell(cell, {"glyphs": {**enough, "train": split(4, 4, 3, 4, 4)}})
    only = r"^5 ways asked of 'glyphs', but only 4 of the 5 classes of its train split have 5 images \(1 shots"
    with pytest.raises(CellFailed, match=only):
        check_cell(cell, {"glyphs": {**enough, "train": split(5, 5, 4, 5, 5)}})
    check_cell(cell, {"glyphs": {**enough, "train": split(5, 5, 4, 5, 5, 9)}})
    schedule = replace(cell.training.schedule, shape=EpisodeShape(9, 1, 1))
    wide = replace(cell, training=replace(cell.training, schedule=schedule))
    with pytest.raises(CellFailed, match=r"^9 ways .* train split has 5 classes"):
        check_cell(wide, {"glyphs": enough})


@pytest.mark.parametrize("sizes", [{}, {"train": 5}, 7, {"train": None, "val": None, "test": None}])
def test_sizes_of_another_form_are_refused_with_the_name_of_the_dataset(
    sizes: object, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metabench_plugins.datasets.glyphs.Glyphs.sizes", lambda self: sizes)
    with pytest.raises(DataError, match=r"the dataset 'glyphs'.*sizes\(\)"):
        plan(BASE)


def test_seeds_change_nothing_else_where_a_cell_tests_weights_of_another(plan: Plan) -> None:
    """Else a table would show each seed as another method."""
    given = BASE.replace(
        "algorithms:\n",
        "algorithms:\n  head: {use: simpleshot, weights: protonet}\n  started: {use: protonet, init: protonet}\n",
    )
    settings: dict[str, set[str]] = {}
    for cell in plan(given + "seeds: [0, 1, 2]\n"):
        rest = {name: value for name, value in cell.identity.items() if name != "seed"}
        key = f"{cell.algorithm.label} {cell.shape}"
        settings.setdefault(key, set()).add(json.dumps(rest, sort_keys=True))
    assert len(settings) == 4
    assert {len(found) for found in settings.values()} == {1}
