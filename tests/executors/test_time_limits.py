"""Limits of time, of a suite and of an executor, and workers that differ from the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from command_line import SUITE, Command
from metabench.contracts import Attempt, Limits, Resources, RunOptions
from metabench.executors.agreement import Planned
from metabench.executors.few_shot import FewShotWork
from metabench.executors.loading import LoadedDataset
from metabench.planning.cells import Cell
from metabench.planning.suite import Suite
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager
from tiny import CPU, Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")


@pytest.mark.parametrize(
    ("value", "seconds"), [(90, 90.0), ("90s", 90.0), ("10m", 600.0), ("1.5 h", 5400.0), ("2d", 172800.0)]
)
def test_a_limit_is_seconds_or_a_number_with_its_unit(value: Any, seconds: float) -> None:
    assert Limits(training=value) == Limits(training=seconds)


@pytest.mark.parametrize("value", ["10 min", "h", "-1s", 0, "1e3s", float("inf")])
def test_a_limit_that_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        Limits(test=value)


def test_the_tighter_limit_of_suite_and_executor_holds() -> None:
    assert Limits(training=60, test=5).tightened(Limits(training=30)) == Limits(training=30, test=5)


@pytest.mark.slow
def test_a_training_beyond_its_limit_fails_with_the_reason_and_the_others_go_on(metabench: Command) -> None:
    text = SUITE.replace("  protonet: {}\n", "  protonet: {train: {steps: 1000000}}\n") + "limits: {training: 8s}\n"
    text = text.replace("    params: {pairs: 8", "    train: {steps: 1}\n    params: {pairs: 8")
    Path("small.yaml").write_text(text, encoding="utf-8")
    ended = metabench("run", "small.yaml", "--output", "out", "--workers")
    assert ended.code == 1, ended.err
    records = {record.algorithm: record for record in Store(Path("out")).records()}
    assert records["siamese"].status == "ok"
    assert records["protonet"].error == "the training took longer than its limit of 8 s (limits.training)"
    assert records["siamese"].circumstances is not None
    assert records["siamese"].circumstances.executor == "processes"
    assert not Path("out/jobs").exists()


@pytest.fixture
def attempts(
    cells_of: Callable[..., tuple[Suite, list[Cell]]], data: LoadedDataset, everything: PluginManager, tmp_path: Path
) -> Callable[[Planned | None], list[Record]]:
    """Return a function that runs a job whose driver has planned with something; it returns the records."""

    def run(planned: Planned | None) -> list[Record]:
        suite, cells = cells_of("centroid")
        datasets, prints = {"blots": data}, {"blots": data.fingerprint}
        options, store = RunOptions(in_process=True), Store(tmp_path)
        work = FewShotWork(suite, cells, cells, prints, CPU, everything, store, {}, {}, options, datasets)
        (job,) = work.jobs()
        assert job.needs == Resources(gpus=0, limits=suite.limits)
        results = list(replace(job, planned=planned).run(Watching()))
        return [result.record for result in results if isinstance(result, Attempt)]

    return run


def test_a_worker_with_the_planned_software_and_data_makes_records(
    attempts: Callable[..., list[Record]], data: LoadedDataset
) -> None:
    (record,) = attempts(Planned(data={"blots": data.fingerprint}))
    assert record.status == "ok"


@pytest.mark.parametrize(
    ("planned", "said"),
    [
        ({"versions": {"torch": "1.0"}}, f"torch {torch.__version__} here, 1.0 in the run's plan"),
        ({"data": {"blots": "0" * 16}}, f"{'0' * 16} in the run's plan"),
        ({"code": {"algorithm centroid": "other"}}, "here, other in the run's plan"),
    ],
    ids=["torch", "data", "code"],
)
def test_a_worker_that_differs_from_the_plan_fails_its_cells_and_says_both(
    attempts: Callable[..., list[Record]], planned: dict[str, Any], said: str
) -> None:
    (record,) = attempts(Planned(**planned))
    assert record.status == "failed"
    assert str(record.error).startswith("the worker on ")
    assert said in str(record.error)
    assert record.train is None
