"""Predictions may depend on the support set and the query alone; every test controls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from metabench.api import Algorithm, Episodes, Support
from metabench.engine import asking
from metabench.engine.controls import check_batch_independence
from metabench.engine.evaluation import inductive_accuracies
from metabench.engine.learner import build_tested
from metabench.engine.outcome import Outcome
from metabench.engine.streams import evaluation_stream
from metabench.errors import CellFailed
from metabench.executors.loading import LoadedDataset
from metabench.machine.memory import BatchSize
from metabench.planning.cells import Cell
from metabench.planning.suite import Suite
from metabench.registry.manager import PluginManager
from tiny import CPU, REAL, SUITE, Centroid

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

Plan = Callable[..., tuple[Suite, list[Cell]]]
Run = Callable[..., Outcome]


def test_scores_that_depend_on_other_episodes_fail_the_cell(run: Run) -> None:
    with pytest.raises(CellFailed, match="depend on the other episodes of its batch"):
        run("gregarious")


@pytest.mark.parametrize(("norm", "leaks"), [("running", False), ("batch", True)])
def test_one_pass_over_several_episodes_leaks_through_batch_norm_only(
    norm: str, leaks: bool, cells_of: Plan, data: LoadedDataset, everything: PluginManager
) -> None:
    _, (cell,) = cells_of("protonet", text=REAL.replace("channels: 4", f"channels: 4, norm: {norm}"))
    algorithm = build_tested(cell, data.splits, CPU, everything)
    algorithm.backbone.per_image = True  # all episodes of a batch are then embedded in one pass
    stream = evaluation_stream(cell, data.splits, CPU)
    if leaks:
        with pytest.raises(CellFailed, match="a backbone is per_image only if"):
            check_batch_independence(algorithm, stream, 0, BatchSize(CPU))
    else:
        check_batch_independence(algorithm, stream, 0, BatchSize(CPU))
    alone = [inductive_accuracies(algorithm, stream, 12, BatchSize(CPU, batch), 0).tolist() for batch in (1, 8)]
    assert alone[0] == alone[1]


@pytest.mark.parametrize("leak", ["remembering", "positional"])
def test_labels_that_leak_fail_the_cell(run: Run, leak: str) -> None:
    message = r"with shuffled support labels the accuracy is 100\.0%, where chance is 33\.3%"
    with pytest.raises(CellFailed, match=message):
        run(leak, text=SUITE.replace("episodes: 12", "episodes: 50"))


@pytest.mark.parametrize("way", [2, 3, 5])
def test_shuffled_labels_accuse_no_honest_method(run: Run, way: int) -> None:
    for shot in (1, 2):
        text = SUITE.replace("ways: [3]", f"ways: [{way}]").replace("shots: [2]", f"shots: [{shot}]")
        assert run("centroid", text=text, name=f"{way}-{shot}").primary.value == 1


def test_random_draws_of_a_prediction_do_not_depend_on_the_batch(run: Run) -> None:
    results = [run("guessing", text=SUITE.replace("batch: 5", f"batch: {batch}"), name=str(batch)) for batch in (1, 5)]
    np.testing.assert_array_equal(results[0].episodes.figures["accuracy"], results[1].episodes.figures["accuracy"])
    assert 0.2 < results[0].primary.value < 0.5


def test_a_cell_with_memory_for_two_test_episodes_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("relative", name="whole")
    ask = asking.ask

    def in_pairs(algorithm: Algorithm, episodes: Episodes, *rest: Any, **options: Any) -> tuple[torch.Tensor, ...]:
        if len(episodes) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return ask(algorithm, episodes, *rest, **options)

    monkeypatch.setattr(asking, "ask", in_pairs)
    narrow = run("relative", name="narrow")
    assert narrow.eval.batch == 2
    assert narrow.transductive is True
    assert (narrow.primary, narrow.inductive_accuracy) == (whole.primary, whole.inductive_accuracy)


def test_no_memory_for_a_test_episode_names_the_settings_of_the_test(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: Centroid, support: Support) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(Centroid, "adapt", greedy)
    with pytest.raises(CellFailed, match=r"in a single test episode: lower ways \(3\), shots \(2\), queries \(4\)"):
        run("centroid")


@pytest.mark.parametrize(
    ("name", "returned"),
    [
        ("labelling", r"it returned \(12,\) of torch.int64"),
        ("padded", r"it returned \(1, 1, 12, 3\) of torch.float32"),
        ("listing", "it returned list"),
    ],
)
def test_predictions_that_are_no_scores_are_refused_with_what_came(run: Run, name: str, returned: str) -> None:
    with pytest.raises(CellFailed, match=returned):
        run(name)


@pytest.mark.parametrize(
    ("name", "remark"),
    [
        ("centroid", "every query of every episode is right: ± 0.00 is no interval"),
        ("constant", "every episode is at chance exactly: all scores of a query tie"),
        ("backwards", "the accuracy is far below chance (33.3%): the largest score is the prediction"),
    ],
)
def test_suspicious_accuracies_are_remarked(run: Run, name: str, remark: str) -> None:
    assert any(said.startswith(remark) for said in run(name).remarks)


def test_an_ordinary_accuracy_has_no_remark(run: Run) -> None:
    outcome = run("protonet", text=REAL)
    assert 1 / 3 < outcome.primary.value < 1
    assert outcome.remarks == []
