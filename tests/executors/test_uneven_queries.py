"""Episodes whose classes have different numbers of queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metabench.records.record import Record
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RunSuite = Callable[..., list[Record]]

BASE = """\
name: uneven
datasets: {blots: {}}
backbones: {conv4: {params: {channels: 4, norm: NORM}}}
algorithms: {ALGORITHM: {}}
ways: [3]
shots: [1]
queries: 4
train: {steps: 7, meta_batch: 2, queries: 4, validate_every: 3, validation_episodes: 5}
eval: {episodes: 40, batch: 5, inductive_episodes: 20, query_balance: dirichlet}
"""


def suite(algorithm: str = "protonet", norm: str = "running") -> str:
    return BASE.replace("ALGORITHM", algorithm).replace("NORM", norm)


@pytest.mark.parametrize("algorithm", ["protonet", "matchingnet", "siamese", "maml", "reptile"])
def test_accuracy_is_the_mean_over_the_queries(run_suite: RunSuite, tmp_path: Path, algorithm: str) -> None:
    (record,) = run_suite(suite(algorithm))
    assert record.status == "ok", record.error
    results = Store(tmp_path / "out").episodes(record, by_label=True)
    assert results.by_class is not None
    assert results.by_class.max() > 1, "a class may have more than its share of the queries"
    assert record.worst_classes == [], "the share of a class says nothing of its accuracy"
    twelfths = results.figures["accuracy"] * 12
    assert np.allclose(twelfths, twelfths.round(), atol=1e-9), "12 queries, without ties"
    assert record.primary is not None
    assert record.primary.value == pytest.approx(results.figures["accuracy"].mean())
    assert all(np.isfinite(estimate.value) for estimate in record.metrics.values() if estimate)
    assert record.identity["shape"]["dirichlet"] == 2.0


def test_alone_leaves_out_classes_without_queries(run_suite: RunSuite, tmp_path: Path) -> None:
    (record,) = run_suite(suite(norm="batch"))
    assert record.transductive
    alone = Store(tmp_path / "out").episodes(record).alone
    assert alone is not None
    assert len(alone) == 20
    assert set(np.unique((alone * 6).round(9))) <= {0, 2, 3, 4, 6}, "one query of each of one, two or three classes"


def test_a_grown_record_is_that_of_a_fresh_run(run_suite: RunSuite) -> None:
    run_suite(suite())
    (grown,) = run_suite(suite().replace("episodes: 40", "episodes: 60"))
    (fresh,) = run_suite(suite().replace("episodes: 40", "episodes: 60"), output="fresh")
    for name, estimate in grown.metrics.items():
        assert estimate == fresh.metrics[name], name


def test_other_shares_are_another_cell_of_the_same_training(run_suite: RunSuite) -> None:
    (even,) = run_suite(suite().replace(", query_balance: dirichlet", ""))
    (uneven,) = run_suite(suite())
    (sharper,) = run_suite(suite().replace("dirichlet}", "dirichlet, dirichlet_alpha: 0.5}"))
    assert len({record.cell for record in (even, uneven, sharper)}) == 3
    assert all(record.data for record in (even, uneven))
    assert even.data != uneven.data, "other episodes"
    assert uneven.weights is not None
    assert uneven.weights.selected_for == "3-way 1-shot, 4 queries"
