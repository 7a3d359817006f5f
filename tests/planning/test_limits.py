"""Suites that limit what a training sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metabench.data.subsets import Subset
from metabench.errors import MetabenchError
from metabench.filters import select
from metabench.planning.cells import Cell, Snapshot
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.planning.suite_text import write_suite_text
from metabench.registry.manager import PluginManager

Plan = Callable[[str], list[Cell]]
Complaint = Callable[[str], str]

SUITE = """\
name: efficiency
datasets: {glyphs: {}}
backbones:
  conv4: {params: {channels: 4}}
algorithms:
  protonet: {}
ways: [5]
shots: [1]
queries: 4
train: {steps: 10, LIMITS}
eval: {episodes: 20}
"""


def suite(limits: str, algorithms: str = "protonet: {}") -> str:
    return SUITE.replace("LIMITS", limits).replace("protonet: {}", algorithms)


@pytest.fixture
def plan(suite_file: Callable[[str], SuiteFile], plugins: PluginManager) -> Plan:
    return lambda text: make_plan(*resolve(suite_file(text)), plugins)


@pytest.fixture
def complaint(plan: Plan) -> Complaint:
    """Return a function that returns a suite's error message after the file name."""

    def write(text: str) -> str:
        with pytest.raises(MetabenchError) as caught:
            plan(text)
        return str(caught.value).partition("suite.yaml")[2]

    return write


def labels(cells: list[Cell]) -> list[str]:
    return [cell.algorithm.label for cell in cells]


def subsets(cells: list[Cell]) -> list[Subset | None]:
    return [cell.training.subset for cell in cells]


def test_a_number_limits_a_training_and_changes_no_label(plan: Plan) -> None:
    (cell,) = plan(suite("classes: 20"))
    assert cell.algorithm.label == "protonet"
    assert cell.training.subset == Subset(20)
    assert cell.identity["subset"] == cell.training.identity["subset"] == {"classes": 20}


def test_without_limits_an_identity_does_not_name_them(plan: Plan) -> None:
    (cell,) = plan(suite("validate_every: 5"))
    assert cell.training.subset is None
    assert "subset" not in cell.identity.keys() | cell.training.identity.keys()


def test_lists_make_labelled_cells_of_their_product(plan: Plan) -> None:
    cells = plan(suite("classes: [10, 20], images_per_class: [5, 10]"))
    assert labels(cells) == [
        f"protonet[train.classes={classes},train.images_per_class={images}]"
        for classes in (10, 20)
        for images in (5, 10)
    ]
    assert subsets(cells) == [Subset(10, 5), Subset(10, 10), Subset(20, 5), Subset(20, 10)]
    assert len({cell.id for cell in cells}) == len({cell.training.id for cell in cells}) == 4
    assert [cell.algorithm.name for cell in cells] == ["protonet"] * 4


def test_a_number_beside_a_list_is_not_in_the_label(plan: Plan) -> None:
    assert labels(plan(suite("classes: [10], images_per_class: 5"))) == ["protonet[train.classes=10]"]


def test_a_limit_stands_in_the_brackets_of_a_grid(plan: Plan) -> None:
    cells = plan(suite("classes: [10]", "protonet: {params: {lr: {grid: [.1]}}}"))
    assert labels(cells) == ["protonet[lr=0.1,train.classes=10]"]
    assert select(cells, {"algorithm": ["protonet"]}) == cells


def test_an_algorithms_own_limits_go_before_those_of_the_suite(plan: Plan) -> None:
    cells = plan(suite("classes: [10, 20]", "protonet: {}\n  maml: {train: {classes: 30}}"))
    assert [cell.training.subset for cell in cells if cell.algorithm.name == "maml"] == [Subset(30)]


def test_a_head_is_tested_on_every_training_of_its_weights(plan: Plan) -> None:
    cells = plan(suite("classes: [10, 20]", "classifier: {}\n  simpleshot: {weights: classifier}"))
    trained, heads = cells[:2], cells[2:]
    assert labels(heads) == ["simpleshot[train.classes=10]", "simpleshot[train.classes=20]"]
    assert [cell.training for cell in heads] == [cell.training for cell in trained]


def test_init_and_teacher_have_seen_the_same_subset(plan: Plan) -> None:
    cells = plan(suite("classes: [10, 20]", "classifier: {}\n  protonet: {init: classifier, teacher: classifier}"))
    for cell, limit in zip(cells[2:], (10, 20), strict=True):
        training = cell.training
        assert isinstance(training.init, Snapshot)
        assert training.teacher is not None
        assert training.init.training.subset == training.teacher.training.subset == training.subset == Subset(limit)
        assert training.init.training.id in {other.training.id for other in cells[:2]}


def test_a_source_with_one_subset_of_its_own_serves_all(plan: Plan) -> None:
    text = suite("classes: [10, 20]", "classifier: {train: {classes: 30}}\n  protonet: {init: classifier}")
    inits = [cell.training.init for cell in plan(text)[1:]]
    assert [init.training.subset for init in inits if isinstance(init, Snapshot)] == [Subset(30)] * 2


def test_a_source_with_several_other_subsets_is_refused(complaint: Complaint) -> None:
    text = suite("classes: [10, 20]", "classifier: {}\n  protonet: {init: classifier, train: {classes: 30}}")
    assert complaint(text) == (
        ":7: algorithms.protonet.init: 'classifier' is trained on several subsets, of which none is that of "
        "'protonet': give both the same train.classes and train.images_per_class"
    )


def test_no_cell_is_made_again_where_no_training_data_are_seen(plan: Plan) -> None:
    cells = plan(suite("classes: [10, 20]", "protonet: {train: none}"))
    assert (labels(cells), subsets(cells)) == (["protonet"], [None])


def test_a_head_that_sees_training_images_has_their_subset_and_seeds(plan: Plan) -> None:
    text = suite("classes: [10, 20]", "simpleshot: {train: none}").replace(
        "conv4: {params: {channels: 4}}", "identity: {}"
    )
    cells = plan(text + "seeds: [0, 1]\n")
    assert subsets(cells) == [Subset(10), Subset(10), Subset(20), Subset(20)]
    assert [cell.seed for cell in cells] == [0, 1, 0, 1], "each seed draws a subset"


def test_patterns_leave_out_cells_of_a_limit(plan: Plan, complaint: Complaint) -> None:
    text = suite("classes: [10, 20]") + 'exclude: [{algorithm: "protonet[train.classes=10]"}]\n'
    assert labels(plan(text)) == ["protonet[train.classes=20]"]
    assert "it matches no cell" in complaint(text.replace("=10", "=11"))


def test_the_stored_suite_plans_the_same_cells(suite_file: Callable[[str], SuiteFile], plugins: PluginManager) -> None:
    suite_, file = resolve(suite_file(suite("classes: [10, 20], images_per_class: 5")))
    again, stored = resolve(
        suite_file(write_suite_text(suite_.model_dump(mode="json", exclude_none=True, exclude={"profile"})))
    )
    assert [cell.id for cell in make_plan(again, stored, plugins)] == [
        cell.id for cell in make_plan(suite_, file, plugins)
    ]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("classes: 0", ":10: train.classes: a number of at least 1 is needed, or a list of them, not 0"),
        (
            "classes: [5, few]",
            ":10: train.classes: a number of at least 1 is needed, or a list of them, not [5, 'few']",
        ),
        ("classes: []", ":10: train.classes: a number of at least 1 is needed, or a list of them, not []"),
        ("images_per_class: true", "a number of at least 1 is needed, or a list of them, not True"),
        ("classes: [5, 5]", ":10: train.classes: a number is given twice, not [5, 5]"),
        (
            "classes: [10, 1000]",
            ":10: train.classes.1: 1000 training classes asked for, and there are 200 in 'glyphs': lower it",
        ),
        (
            "images_per_class: 1000",
            ":10: train.images_per_class: 1000 training images of a class asked for, and no class has more than 20 in "
            "'glyphs': lower it",
        ),
        (
            "classes: 4",
            ":10: train.classes: too few for a training episode: 5 ways asked of 'glyphs', whose train split has 4 "
            "classes: lower the ways",
        ),
        (
            "images_per_class: 4",
            ":10: train.images_per_class: too few for a training episode: 5 images of a class asked of 'glyphs' (1 "
            "shots + 4 queries), whose train split has 4: lower the shots or the queries",
        ),
    ],
)
def test_a_wrong_limit_is_refused_with_its_line(complaint: Complaint, limits: str, message: str) -> None:
    assert message in complaint(suite(limits))


def test_a_regression_has_nothing_to_limit(complaint: Complaint) -> None:
    text = suite("classes: 4").replace("glyphs", "sinusoid").replace("ways: [5]\n", "").replace("protonet", "maml")
    message = "a regression has no classes of images to take some of: remove this"
    assert complaint(text.replace("conv4: {params: {channels: 4}}", "mlp: {}")) == f":9: train.classes: {message}"
