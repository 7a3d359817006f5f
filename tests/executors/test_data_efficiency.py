"""Trainings that see a subset of the training split, from the suite to the record."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from metabench.data.packing import LoadedDataset
from metabench.engine.images import ImageBatches
from metabench.engine.learner import build
from metabench.engine.progress import Interrupted
from metabench.engine.steps import training_batches
from metabench.engine.subsets import splits_of
from metabench.executors.rehearsal import rehearse
from metabench.planning.cells import Cell
from metabench.records.record import Record
from metabench.registry.manager import PluginManager
from metabench_plugins.algorithms.simpleshot import SimpleShot
from tiny import CPU, Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RunSuite = Callable[..., list[Record]]
Plan = Callable[..., tuple[Any, list[Cell]]]

SUITE = """\
name: tiny
datasets: {blots: {}}
backbones: {conv4: {params: {channels: 4, norm: running}}}
ways: [3]
shots: [2]
queries: 1
seeds: SEEDS
train: {steps: 4, batch: 4, validate_every: 2, validation_episodes: 5, LIMITS}
eval: {episodes: 12, batch: 5}
algorithms: ALGORITHMS
"""


def suite(algorithms: str, limits: str, seeds: str = "[0]") -> str:
    return SUITE.replace("ALGORITHMS", algorithms).replace("LIMITS", limits).replace("SEEDS", seeds)


def plan_of(cells_of: Plan, text: str) -> list[Cell]:
    return cells_of(text=text.replace("{", "{{").replace("}", "}}"))[1]


def essence(record: Record) -> dict[str, Any]:
    assert record.status == "ok", record.error
    return record.model_dump(include={"metrics", "worst_classes", "transductive"})


def trained_images(cell: Cell, data: LoadedDataset) -> set[bytes]:
    """Return all images that many steps of a training see."""
    batches = training_batches(cell.training, splits_of(cell.training, data.splits), CPU)
    schedule = cell.training.schedule
    assert schedule is not None
    seen = set()
    for step in range(60):
        batch: Any = batches(step)
        x = batch.x if schedule.shape is None else torch.cat([batch.support_x, batch.query_x], dim=1).flatten(0, 1)
        seen |= {image.numpy().tobytes() for image in x}
    return seen


def test_images_and_episodes_of_one_seed_are_of_the_same_subset(cells_of: Plan, data: LoadedDataset) -> None:
    limits = "classes: 4, images_per_class: 5"
    images, episodes, other = plan_of(cells_of, suite("{classifier: {}, protonet: {}}", limits, "[3]")) + plan_of(
        cells_of, suite("{classifier: {}}", limits, "[4]")
    )
    of_images = trained_images(images, data)
    assert len(of_images) == 20
    assert trained_images(episodes, data) == of_images
    assert trained_images(other, data) != of_images, "seeds differ in what they see"


def test_larger_subsets_contain_smaller_ones(cells_of: Plan, data: LoadedDataset) -> None:
    cells = plan_of(cells_of, suite("{protonet: {}}", "classes: [3, 4, 6], images_per_class: [3, 5, 8]"))
    seen = {cell.training.subset: trained_images(cell, data) for cell in cells}
    for small, large in pairwise(sorted(seen, key=lambda subset: len(seen[subset]))):
        assert len(seen[small]) <= len(seen[large])
        if small.classes <= large.classes and small.images_per_class <= large.images_per_class:  # type: ignore[union-attr, operator]
            assert seen[small] <= seen[large]


def test_a_classifier_has_an_output_for_each_class_of_its_subset(
    cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    (cell,) = plan_of(cells_of, suite("{classifier: {}}", "classes: 4"))
    splits = splits_of(cell.training, data.splits)
    algorithm = build(cell.training, splits, CPU, everything)
    assert {len(value) for name, value in algorithm.state_dict().items() if name.startswith("classes.")} == {4}
    assert ImageBatches(splits["train"], 4, 0, CPU).step(0).classes == 4  # type: ignore[arg-type]
    assert splits["val"] is data.splits["val"]
    assert splits["test"] is data.splits["test"]


def test_everything_as_a_limit_trains_the_same_as_no_limit(run_suite: RunSuite) -> None:
    algorithms = "{classifier: {}, protonet: {}}"
    limited = run_suite(suite(algorithms, "classes: 6, images_per_class: 8"))
    whole = run_suite(suite(algorithms, "patience: 9").replace(", patience: 9", ""), output="whole")
    assert [essence(record) for record in limited] == [essence(record) for record in whole]
    assert {record.cell for record in limited} & {record.cell for record in whole} == set()


def test_a_list_gives_a_record_of_each_number(run_suite: RunSuite) -> None:
    records = run_suite(suite("{classifier: {}, simpleshot: {weights: classifier}}", "classes: [3, 6]"))
    found = {record.algorithm: essence(record) for record in records}
    assert sorted(found) == [
        f"{name}[train.classes={classes}]" for name in ("classifier", "simpleshot") for classes in (3, 6)
    ]
    assert found["classifier[train.classes=3]"] != found["classifier[train.classes=6]"]
    assert {record.algorithm[-2]: record.identity["subset"] for record in records} == {
        "3": {"classes": 3},
        "6": {"classes": 6},
    }


def test_prepare_sees_the_subset_of_the_seed(
    run_suite: RunSuite, cells_of: Plan, data: LoadedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums: list[float] = []
    prepare = SimpleShot.prepare

    def noting(self: SimpleShot, train: Any) -> None:
        batches = list(train)
        sums.append(sum(float(images.x.double().sum()) for images in batches))
        prepare(self, batches)

    monkeypatch.setattr(SimpleShot, "prepare", noting)
    text = suite("{simpleshot: {train: none}}", "classes: 2, images_per_class: 3", "[0, 1]")
    text = text.replace("conv4: {params: {channels: 4, norm: running}}", "identity: {}")
    run_suite(text)
    expected = []
    for cell in plan_of(cells_of, text):
        rows: Any = splits_of(cell.training, data.splits)["train"]
        assert len(rows.rows) == 6
        expected.append(float(rows.rows.take(torch.arange(6)).double().sum() / 255))
    assert sums == pytest.approx(expected, rel=1e-5)
    assert sums[0] != sums[1]


def test_an_interrupted_training_goes_on_with_its_subset(run_suite: RunSuite) -> None:
    text = suite("{classifier: {}}", "classes: 4, images_per_class: 5")
    (undisturbed,) = run_suite(text, output="undisturbed")
    with pytest.raises(Interrupted):
        run_suite(text, watcher=Watching("train", 3))
    (resumed,) = run_suite(text)
    assert essence(resumed) == essence(undisturbed)


def test_an_epoch_has_the_images_of_the_subset(
    run_suite: RunSuite, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    text = suite("{classifier: {}}", "classes: 4, images_per_class: 5").replace("steps: 4", "epochs: 3")
    (record,) = run_suite(text)
    assert record.train is not None
    assert record.train.steps == 15, "three epochs of 20 images in batches of 4"
    cells = plan_of(cells_of, text)
    assert rehearse(cells, {"blots": data.splits}, CPU, everything).keys() == {cell.id for cell in cells}


def test_more_than_the_loaded_data_have_fails_the_cell_only(run_suite: RunSuite) -> None:
    records = run_suite(suite("{classifier: {}}", "classes: [3, 7]"))
    assert [record.status for record in records] == ["ok", "failed"]
    assert records[1].error == "7 training classes asked for, and there are 6: lower train.classes"
