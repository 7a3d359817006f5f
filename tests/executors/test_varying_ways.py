"""Tests whose episodes draw their ways and shots, from the suite to the record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metabench.analysis.standings import make_tables
from metabench.api import Split
from metabench.data.meta_dataset import MetaDatasetSampler
from metabench.data.order import Order
from metabench.data.packing import LoadedDataset
from metabench.data.sampler import EpisodeShape
from metabench.errors import SuiteError
from metabench.planning.cells import Cell
from metabench.records.record import Record
from metabench.records.runs import Runs
from metabench.records.store import Store
from tiny import Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RunSuite = Callable[..., list[Record]]
Plan = Callable[..., tuple[Any, list[Cell]]]

SUITE = """\
name: tiny
datasets: {blots: {}}
backbones: {BACKBONE: {}}
ways: [3]
shots: [2]
queries: 4
train: {steps: 2, validation_episodes: 5}
eval: {episodes: 12, sampling: meta-dataset}
algorithms: {ALGORITHMS}
"""


def suite(algorithms: str, backbone: str = "identity") -> str:
    return SUITE.replace("ALGORITHMS", algorithms).replace("BACKBONE", backbone)


def plan_of(cells_of: Plan, text: str) -> list[Cell]:
    return cells_of(text=text.replace("{", "{{").replace("}", "}}"))[1]


def accuracies(record: Record, tmp_path: Path, output: str = "out") -> list[float]:
    assert record.status == "ok", record.error
    return Store(tmp_path / output).episodes(record).figures["accuracy"].tolist()


def test_each_episode_has_the_accuracy_of_its_own_way_and_shots(
    run_suite: RunSuite, data: LoadedDataset, tmp_path: Path
) -> None:
    (record,) = run_suite(suite("protonet: {train: none}"))
    test = data.splits["test"]
    assert isinstance(test, Split)
    order = Order.of(test, 2)
    shape = EpisodeShape(0, 0, 0, sampling="meta-dataset")
    sampler = MetaDatasetSampler(order.offsets, shape, order.stream("test"), 0)
    pixels = test.rows.take(torch.arange(48)).flatten(1).double().numpy()[order.images] / 255
    expected = []
    for number in range(12):
        episode = sampler.draw(number, 1)
        labels = episode.support_labels[0]
        means = [pixels[episode.support[0][labels == label]].mean(axis=0) for label in range(labels.max() + 1)]
        distances = np.square(pixels[episode.query[0]][:, None] - np.array(means)).sum(axis=2)
        expected.append(float((distances.argmin(axis=1) == episode.query_labels[0]).mean()))
    assert accuracies(record, tmp_path) == pytest.approx(expected)
    assert {len(set(sampler.draw(number, 1).support_labels[0].tolist())) for number in range(12)} == {5, 6}


def test_the_record_says_that_ways_and_shots_vary(run_suite: RunSuite, tmp_path: Path) -> None:
    (record,) = run_suite(suite("protonet: {}", "conv4"))
    assert (record.way, record.shot, record.queries) == (0, 0, 0)
    assert record.identity["shape"]["sampling"] == "meta-dataset"
    assert record.identity["validated_in"] == {"way": 3, "shot": 2, "queries": 4}
    assert record.primary is not None
    assert (record.primary.episodes, record.primary.data_ci95) == (12, None)
    assert record.metrics["nll_calibrated"] is not None, "validation episodes have one shape"
    assert record.worst_classes == []
    assert record.flops_per_episode is None
    store = Store(tmp_path / "out")
    assert store.outputs(record.cell) is None
    assert store.episodes(record).groups.shape == (12, 0)
    runs = Runs.read([tmp_path / "out"])
    (table,) = make_tables(runs.records, runs)
    assert table.title == "blots · varying ways and shots · conv4 · 12 test episodes"


def test_an_algorithm_for_one_way_is_skipped_before_its_training(run_suite: RunSuite) -> None:
    watcher = Watching()
    records = run_suite(suite("centroid: {}, maml: {}", "conv4"), watcher=watcher)
    assert [record.status for record in records] == ["skipped", "skipped"]
    assert {record.error for record in records} == {
        "it is built for one way, and the ways of the test episodes vary: only an algorithm of any way fits"
    }
    assert not [name for name, _, _ in watcher.phases if name == "train"]


def test_a_transductive_algorithm_is_measured_as_such(run_suite: RunSuite) -> None:
    (record,) = run_suite(suite("versatile: {}"))
    assert record.status == "ok", record.error
    assert record.transductive
    assert record.inductive_accuracy is not None


def test_a_test_that_has_grown_is_the_same_as_a_longer_one(run_suite: RunSuite, tmp_path: Path) -> None:
    text = suite("protonet: {}", "conv4")
    run_suite(text.replace("episodes: 12", "episodes: 7"))
    (grown,) = run_suite(text)
    (fresh,) = run_suite(text, output="fresh")
    assert accuracies(grown, tmp_path) == accuracies(fresh, tmp_path, "fresh")
    assert grown.metrics == fresh.metrics


def test_validation_episodes_are_part_of_a_cell(cells_of: Plan) -> None:
    text = suite("protonet: {train: {way: 3, shot: 2}}", "conv4")
    (one,), (other,) = plan_of(cells_of, text), plan_of(cells_of, text.replace("shots: [2]", "shots: [1]"))
    assert one.training.id == other.training.id
    assert one.id != other.id


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ways: [3]", "ways: [3, 4]", "test episodes have ways and shots of their own: give one way and one shot"),
        ("shots: [2]", "shots: [1, 2]", "test episodes have ways and shots of their own: give one way and one shot"),
        ("sampling: meta", "query_balance: dirichlet, sampling: meta", "sampling draws the sizes of episodes"),
        ("meta-dataset", "meta", "eval.sampling"),
    ],
)
def test_settings_that_mean_nothing_beside_it_are_refused(cells_of: Plan, old: str, new: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        plan_of(cells_of, suite("protonet: {}").replace(old, new))
