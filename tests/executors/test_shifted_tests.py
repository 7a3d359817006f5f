"""Runs whose tests have strangers among the queries, and corrupted queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metabench.errors import StoreError, SuiteError
from metabench.records.record import Record
from metabench.records.store import Store
from tiny import Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RunSuite = Callable[..., list[Record]]

SUITE = """\
name: tiny
datasets: {blots: {}}
backbones: {conv4: {params: {channels: 4, norm: batch}}}
ways: [3]
shots: [2]
queries: 4
train: {steps: 7, meta_batch: 2, validate_every: 3, validation_episodes: 5}
eval: {episodes: 12, batch: 5, ASKED}
algorithms: {protonet: {}}
"""
SHIFTS = "strangers: 3, corruptions: [gaussian_noise, contrast], severity: 2"
NAMES = ["auroc_3", "accuracy_gaussian_noise_2", "accuracy_contrast_2"]


def suite(asked: str, *changes: tuple[str, str]) -> str:
    text = SUITE.replace("ASKED", asked)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def figures(tmp_path: Path, record: Record, output: str = "out") -> dict[str, list[float]]:
    assert record.status == "ok", record.error
    return {name: values.tolist() for name, values in Store(tmp_path / output).episodes(record).figures.items()}


def test_shifts_are_metrics_with_intervals_beside_the_others(run_suite: RunSuite, tmp_path: Path) -> None:
    (plain,) = run_suite(suite("seed: 0"), output="plain")
    (record,) = run_suite(suite(SHIFTS))
    found, without = figures(tmp_path, record), figures(tmp_path, plain, "plain")
    assert {name: found[name] for name in without} == without, "other metrics do not change"
    assert sorted(found.keys() - without.keys()) == sorted(NAMES)
    for name in NAMES:
        estimate = record.metrics[name]
        assert estimate is not None
        assert len(found[name]) == estimate.episodes == 12
        assert estimate.value == pytest.approx(np.mean(found[name]))
        assert estimate.ci95 > 0
    assert record.declarations["auroc_3"].title == "AUROC 3"
    assert record.declarations["accuracy_contrast_2"].heading == "contrast 2 %"
    assert record.cell == plain.cell


def test_a_grown_test_has_the_shifts_of_a_fresh_one(run_suite: RunSuite, tmp_path: Path) -> None:
    run_suite(suite(SHIFTS))
    (grown,) = run_suite(suite(SHIFTS, ("episodes: 12", "episodes: 31")))
    (fresh,) = run_suite(suite(SHIFTS, ("episodes: 12", "episodes: 31")), output="fresh")
    assert figures(tmp_path, grown) == figures(tmp_path, fresh, "fresh")


def test_a_shift_that_is_asked_for_later_is_tested_with_the_kept_weights(run_suite: RunSuite, tmp_path: Path) -> None:
    run_suite(suite("seed: 0"))
    watcher = Watching()
    (record,) = run_suite(suite(SHIFTS), watcher=watcher)
    assert not any(phase == "train" for phase, _, _ in watcher.phases)
    assert figures(tmp_path, record).keys() >= set(NAMES)
    again = Watching()
    run_suite(suite(SHIFTS), watcher=again)
    assert again.phases == []


def test_a_later_shift_without_kept_weights_is_refused(run_suite: RunSuite) -> None:
    run_suite(suite("seed: 0"), keep_weights=False)
    with pytest.raises(StoreError, match=r"has no auroc_3, and its weights have not been kept.*--fresh, or ask for"):
        run_suite(suite("strangers: 3"))


def test_strangers_that_the_data_lacks_are_a_remark_and_the_cell_is_ok(run_suite: RunSuite) -> None:
    (record,) = run_suite(suite("strangers: 4"))
    assert record.status == "ok"
    assert record.metrics["auroc_4"] is None
    assert "not measured: auroc_4 (4 classes of strangers asked, and 3-way episodes leave 3)" in record.remarks
    again = Watching()
    run_suite(suite("strangers: 4"), watcher=again)
    assert again.phases == [], "it is not tried again"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("sampling: meta-dataset, strangers: 3", "strangers are of drawn episodes of one shape: remove strangers"),
        ("episodes_file: a.json, corruptions: [contrast]", "corruptions are of drawn episodes of one shape"),
        ("corruptions: [contrast, contrast]", "eval.corruptions: a corruption is given twice"),
        ("corruptions: [contrats]", "eval.corruptions"),
        ("severity: 6", "eval.severity"),
        ("strangers: -1", "eval.strangers"),
    ],
)
def test_settings_that_mean_nothing_are_refused(run_suite: RunSuite, asked: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        run_suite(suite(asked))
