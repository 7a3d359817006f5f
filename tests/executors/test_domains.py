"""Tests on another dataset than that of the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from metabench.errors import SuiteError
from metabench.records.record import Record
from metabench.records.store import Store
from tiny import Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RunSuite = Callable[..., list[Record]]

BASE = """\
name: domains
datasets: DATASETS
backbones: {conv4: {params: {channels: 4, norm: batch}}}
algorithms: {protonet: {}}
ways: [3]
shots: [2]
queries: 4
train: {steps: 7, meta_batch: 2, validate_every: 3, validation_episodes: 5}
eval: {episodes: 12, batch: 5}
"""

BOTH = BASE.replace("DATASETS", "{blots: {test_on: [blots, smears]}, smears: {test_on: [smears, blots]}}")


def accuracies(tmp_path: Path, record: Record, output: str = "out") -> list[float]:
    assert record.status == "ok", record.error
    return Store(tmp_path / output).episodes(record).figures["accuracy"].tolist()


def test_each_training_is_tested_on_each_dataset_and_made_once(run_suite: RunSuite, tmp_path: Path) -> None:
    watcher = Watching()
    records = run_suite(BOTH, watcher=watcher)
    pairs = [(record.trained_on, record.dataset) for record in records]
    assert pairs == [("", "blots"), ("blots", "smears"), ("", "smears"), ("smears", "blots")]
    assert sum(1 for name, _, done in watcher.phases if name == "train" and done == 0) == 2
    assert len({record.cell for record in records}) == 4
    assert records[0].data is not None
    assert records[3].data is not None
    assert records[0].data.episodes == records[3].data.episodes, "the same test episodes, whatever it was trained on"
    assert records[0].data.trained_on == ""
    assert records[3].data.trained_on == records[1].dataset_fingerprint
    alone = run_suite(BASE.replace("DATASETS", "{blots: {}}"), output="alone")
    assert accuracies(tmp_path, records[0]) == accuracies(tmp_path, alone[0], "alone")
    assert records[0].cell == alone[0].cell
    assert accuracies(tmp_path, records[0]) != accuracies(tmp_path, records[3])


def test_a_dataset_may_be_tested_on_only(run_suite: RunSuite) -> None:
    text = BASE.replace("DATASETS", "{blots: {test_on: [smears]}, smears: {test_on: []}}")
    (record,) = run_suite(text)
    assert (record.trained_on, record.dataset, record.status) == ("blots", "smears", "ok")
    assert record.identity["trained_on"]["name"] == "blots"


def test_finished_cells_are_kept(run_suite: RunSuite) -> None:
    records = run_suite(BOTH)
    watcher = Watching()
    assert run_suite(BOTH, watcher=watcher) == records
    assert [kept for _, kept in watcher.done] == [True] * 4


def test_validation_is_of_the_training_or_the_test_and_the_record_says_which(
    run_suite: RunSuite, tmp_path: Path
) -> None:
    source = run_suite(BOTH)
    target = run_suite(BOTH.replace("meta_batch: 2", "meta_batch: 2, validate_on: test"), output="target")
    assert [record.cell == other.cell for record, other in zip(source, target, strict=True)] == [True, False] * 2
    for record, other in zip(source[1::2], target[1::2], strict=True):
        assert record.train is not None
        assert other.train is not None
        assert record.train.validation != other.train.validation
        assert "validated_on" not in record.identity
        assert other.identity["validated_on"]["name"] == record.dataset


def test_images_of_another_size_skip_the_cell(run_suite: RunSuite) -> None:
    text = BASE.replace("DATASETS", "{blots: {test_on: [blots, large]}, large: {test_on: []}}")
    same, other = run_suite(text)
    assert (same.status, other.status) == ("ok", "skipped")
    assert other.error == (
        "it is trained on images of shape (1, 16, 16) (blots), and those of large have (1, 32, 32): give both datasets "
        "the same size and channels"
    )


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ("{blots: {test_on: [smeers]}, smears: {}}", "the suite has no dataset 'smeers' (did you mean 'smears'"),
        ("{blots: {test_on: [smears, smears]}, smears: {}}", "'smears' is given twice"),
        ("{blots: {test_on: []}}", "nothing is tested: every dataset has an empty test_on"),
    ],
)
def test_wrong_targets_are_reported(run_suite: RunSuite, datasets: str, message: str) -> None:
    with pytest.raises(SuiteError) as error:
        run_suite(BASE.replace("DATASETS", datasets))
    assert message in str(error.value)


def test_cells_are_chosen_by_the_dataset_of_their_training(run_suite: RunSuite) -> None:
    text = BOTH + "exclude: [{trained_on: smears}]\n"
    assert [(record.trained_on, record.dataset) for record in run_suite(text)] == [("", "blots"), ("blots", "smears")]
