"""A suite that is ranked by what adapted learners do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import Command
from metabench.records.record import Record
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

STROLLS = Path(__file__).parents[1] / "strolls.py"
SUITE = f"""\
name: strolls
datasets:
  strolls: {{use: '{STROLLS}:Strolls', params: {{test: 20}}}}
backbones:
  mlp: {{params: {{hidden: [16]}}}}
algorithms:
  maml: {{params: {{inner_lr: 0.2, test_inner_steps: {{grid: [0, 1]}}}}}}
  pretrained: {{}}
  conv: {{use: protonet}}
shots: [1]
queries: 2
train: {{steps: 200, meta_batch: 8, validate_every: 100, validation_episodes: 4}}
eval: {{episodes: 20}}
gate: {{tolerance: 5}}
"""


@pytest.fixture
def strolls(metabench: Command) -> Command:
    Path("strolls.yaml").write_text(SUITE, encoding="utf-8")
    ended = metabench("run", "strolls.yaml", "--output", "out")
    assert ended.code == 0, ended.err
    return metabench


def records(folder: str = "out") -> dict[str, Record]:
    return {record.algorithm: record for record in Store(Path(folder)).records()}


def test_rollouts_rank_beside_the_error_of_answers(strolls: Command) -> None:
    found = records()
    assert found.pop("conv").status == "skipped"
    for record in found.values():
        assert record.status == "ok", record.error
        assert record.ranked_by == "arrived"
        assert record.task == "regression"
        assert set(record.metrics) == {"mse", "arrived", "gap"}
        assert record.primary is not None
        assert record.inductive_accuracy == record.primary
        values = Store(Path("out")).episodes(record).figures["arrived"]
        assert set(values.tolist()) <= {0.0, 1.0}
        assert record.primary.value == values.mean()
        assert record.train is not None
        assert record.metric_of_answers == "mse"
        assert record.train.validation_value == min(point.value for point in record.train.validation)
        assert record.costs["rollout_seconds"].value > 0
        assert record.data is not None
        assert "no control by shuffled labels" in record.data.remarks[0]
    before, after = (found[f"maml[test_inner_steps={steps}]"].metrics["gap"] for steps in (0, 1))
    assert before is not None
    assert after is not None
    assert after.value < before.value
    table = pd.read_csv("out/leaderboard.csv").set_index("algorithm")
    assert table["arrived"].dropna().to_dict() == {
        name: record.primary.value for name, record in found.items() if record.primary
    }


def test_a_second_run_gives_the_same_bits(strolls: Command) -> None:
    assert strolls("run", "strolls.yaml", "--output", "again").code == 0
    one, other = Store(Path("out")), Store(Path("again"))
    for record in one.records():
        if record.status == "ok":
            mine, theirs = one.episodes(record).figures, other.episodes(record).figures
            assert {name: values.tobytes() for name, values in mine.items()} == {
                name: values.tobytes() for name, values in theirs.items()
            }


def test_a_test_of_more_episodes_than_tasks_keeps_the_first_and_has_an_interval_about_the_tasks(
    strolls: Command,
) -> None:
    store = Store(Path("out"))
    before = {record.cell: store.episodes(record).figures for record in store.records() if record.status == "ok"}
    assert {record.primary.data_ci95 for record in records().values() if record.primary} == {None}
    Path("strolls.yaml").write_text(SUITE.replace("episodes: 20", "episodes: 50"), encoding="utf-8")
    assert strolls("run", "strolls.yaml", "--output", "out").code == 0
    for record in store.records():
        if record.status == "ok":
            results = store.episodes(record)
            assert results.groups.shape == (50, 1)
            for name, values in before[record.cell].items():
                assert results.figures[name][:20].tobytes() == values.tobytes()
            assert record.metrics["gap"] is not None
            assert record.metrics["gap"].data_ci95 is not None


def test_walkers_in_lockstep_do_not_depend_on_each_other(strolls: Command) -> None:
    text = SUITE.replace("test: 20", "test: 20, at_once: 1")
    Path("alone.yaml").write_text(text, encoding="utf-8")
    assert strolls("run", "alone.yaml", "--output", "alone").code == 0
    together, alone = Store(Path("out")), Store(Path("alone"))
    for name, record in records().items():
        if record.status == "ok":
            mine, other = together.episodes(record), alone.episodes(records("alone")[name])
            assert np.array_equal(mine.figures["gap"], other.figures["gap"])


def test_tables_report_gate_score_and_verification_serve_these_records(strolls: Command) -> None:
    ended = strolls("leaderboard", "out")
    assert "arrived" in ended.out
    assert "MSE" in ended.out
    assert strolls("leaderboard", "out", "--rank-by", "mse").code == 0
    assert strolls("compare", "out", "out").code == 0
    ended = strolls("verify", "out")
    assert ended.code == 0, ended.out + ended.err
    ended = strolls("report", "out")
    assert ended.code == 0, ended.err
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "Validation: MSE" in page
    assert "of the row minus the column" in page


def test_fewer_arrivals_fail_the_gate(strolls: Command) -> None:
    base, other = Store(Path("out")), Store(Path("worse"))
    for record in base.records():
        if record.status != "ok" or record.primary is None:
            continue
        episodes = base.episodes(record)
        none = {**episodes.figures, "arrived": np.zeros(20)}
        estimate = record.primary.model_copy(update={"value": 0.0, "ci95": 0.0, "std": 0.0})
        metrics = {**record.metrics, "arrived": estimate}
        changed = {"metrics": metrics, "inductive_accuracy": estimate}
        other.write(record.model_copy(update=changed), type(episodes)(none, episodes.groups))
    failed = strolls("compare", "out", "worse")
    assert failed.code == 1
    assert strolls("compare", "worse", "out").code == 0


def test_kept_outputs_are_answers(strolls: Command) -> None:
    store = Store(Path("out"))
    for record in store.records():
        if record.status == "ok":
            outputs = store.outputs(record.cell)
            assert outputs is not None
            np.testing.assert_array_equal(outputs.values, store.episodes(record).figures["mse"])


def test_the_pack_is_prepared_and_verified(strolls: Command) -> None:
    assert "packed, 22 classes" in strolls("data", "prepare", f"{STROLLS}:Strolls").out
    assert "was already packed" in strolls("data", "prepare", f"{STROLLS}:Strolls").out
    assert "as it was packed" in strolls("data", "verify").out
