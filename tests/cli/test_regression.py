"""A suite of regressions on the command line: ranked by an error, of which less is better."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import Command, Distributions
from metabench.analysis.metrics import SquaredError
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.reporting.figures import shown

pytestmark = pytest.mark.usefixtures("one_thread")

SUITE = """\
name: waves
datasets:
  sinusoid: {}
backbones:
  mlp: {params: {hidden: [8], std: 0.1}}
algorithms:
  maml: {params: {inner_lr: 0.01, test_inner_steps: {grid: [0, 5]}}}
  pretrained: {}
  random: {use: pretrained, train: none}
  protonet: {}
shots: [5]
queries: 4
train: {steps: 30, meta_batch: 4, validate_every: 10, validation_episodes: 8}
eval: {episodes: 30}
gate: {tolerance: 0.1}
"""


@pytest.fixture
def waves(metabench: Command) -> Command:
    Path("waves.yaml").write_text(SUITE, encoding="utf-8")
    ended = metabench("run", "waves.yaml", "--output", "out")
    assert ended.code == 0, ended.err
    return metabench


def records(folder: str = "out") -> dict[str, Record]:
    return {record.algorithm: record for record in Store(Path(folder)).records()}


def test_a_regression_is_run_ranked_and_shown(waves: Command) -> None:
    found = records()
    assert {record.task for record in found.values()} == {"regression"}
    protonet = found.pop("protonet")
    assert protonet.status == "skipped"
    assert protonet.error == "it does classification only, and the episodes are of regression"
    errors = {}
    for name, record in found.items():
        assert record.status == "ok", record.error
        assert record.ranked_by == "mse"
        assert record.primary is not None
        assert (record.primary.episodes, record.primary.data_ci95) == (30, None)
        assert (record.temperature, record.worst_classes, record.transductive) == (None, [], False)
        assert record.remarks == []
        assert record.data is not None
        assert "no classes: no interval about the data, no control by shuffled labels" in record.data.remarks[0]
        errors[name] = record.primary.value
    maml = found["maml[test_inner_steps=5]"].train
    assert maml is not None
    assert maml.validation_value == min(point.value for point in maml.validation)

    table = pd.read_csv("out/leaderboard.csv").set_index("algorithm")
    assert table["mse"].dropna().to_dict() == errors
    assert list(table.index)[:-1] == sorted(errors, key=lambda name: errors[name])
    assert table["validation"].notna().sum() == 3
    ended = waves("leaderboard", "out")
    assert "sinusoid · 5-shot · mlp · 30 test episodes" in ended.out
    assert " % " not in ended.out.partition("#: rank")[0]
    best = found[str(table.index[0])]
    assert best.primary is not None
    assert shown(best.ranking, best.primary.value, best.primary.ci95) in ended.out
    assert json.loads(waves("leaderboard", "out", "--format", "json").out)[0]["rank"] == 1


def test_the_kept_outputs_of_a_regression_have_its_error(waves: Command) -> None:
    store = Store(Path("out"))
    for record in store.records():
        if record.status == "ok":
            outputs = store.outputs(record.cell)
            assert outputs is not None
            assert outputs.outputs.shape == outputs.targets.shape == (30, 4, 1)
            errors = SquaredError().of_episode(outputs.outputs.astype(np.float64), outputs.targets)
            episodes = store.episodes(record)
            np.testing.assert_allclose(errors, episodes.figures["mse"], rtol=1e-4, atol=1e-5)
            assert episodes.groups.shape == (30, 0)
            assert episodes.by_class is None


def test_a_test_of_more_episodes_keeps_the_first_ones_bit_for_bit(waves: Command) -> None:
    store = Store(Path("out"))
    before = {record.cell: store.episodes(record).figures["mse"] for record in store.records() if record.status == "ok"}
    Path("waves.yaml").write_text(SUITE.replace("episodes: 30", "episodes: 70"), encoding="utf-8")
    assert waves("run", "waves.yaml", "--output", "out").code == 0
    for record in store.records():
        if record.status == "ok":
            after = store.episodes(record).figures["mse"]
            assert len(after) == 70
            np.testing.assert_array_equal(after[:30], before[record.cell])


def test_a_higher_error_fails_the_gate_and_a_lower_one_does_not(waves: Command) -> None:
    assert waves("compare", "out", "out").code == 0
    base, other = Store(Path("out")), Store(Path("worse"))
    for record in base.records():
        if record.status != "ok" or record.primary is None:
            continue
        episodes = base.episodes(record)
        worse = episodes.figures["mse"] + 1.0
        estimate = record.primary.model_copy(update={"value": float(worse.mean())})
        changed = {"metrics": {"mse": estimate}, "inductive_accuracy": None}
        other.write(record.model_copy(update=changed), type(episodes)({"mse": worse}, episodes.groups))
    failed = waves("compare", "out", "worse")
    assert "limits: tolerance 0.1 MSE, " in failed.out
    assert failed.code == 1
    assert "MSE" in failed.out or "mse" in failed.out
    assert waves("compare", "out", "worse", "--tolerance", "2").code == 0
    assert waves("compare", "worse", "out").code == 0


#: A plugin of a metric of regression and one of classification.
ERRORS = """
    import numpy as np

    from metabench.specs import Metric, MetricSpec, hookimpl

    class Absolute(Metric):
        def of_episode(self, outputs, targets):
            return np.abs(outputs - targets).mean(axis=(1, 2))

    class Confidence(Metric):
        def of_episode(self, outputs, targets):
            return np.exp(outputs).max(axis=-1).mean(axis=1)

    @hookimpl
    def metabench_metrics():
        target = f"{__name__}:Absolute"
        return [
            MetricSpec("mae", target, "mean absolute error", better="low", lowest=0.0, task="regression"),
            MetricSpec("confidence", f"{__name__}:Confidence", "of the top label"),
        ]
"""


def test_metrics_of_plugins_are_computed_for_their_kind_of_task(waves: Command, distributions: Distributions) -> None:
    assert set(records()["random"].metrics) == {"mse"}
    distributions.add("errors", ERRORS)
    assert waves("plugin", "check", "mae").code == 0
    scored = waves("score", "out")
    assert scored.code == 0, scored.err
    for record in records().values():
        if record.status == "ok":
            assert set(record.metrics) == {"mse", "mae"}
            outputs = Store(Path("out")).outputs(record.cell)
            mae = record.metrics["mae"]
            assert outputs is not None
            assert mae is not None
            assert mae.value == pytest.approx(np.abs(outputs.outputs - outputs.targets).mean(), rel=1e-4)
    ended = waves("leaderboard", "out", "--rank-by", "mae")
    assert ended.code == 0, ended.err


def test_the_report_shows_fitted_curves(waves: Command) -> None:
    ended = waves("report", "out")
    assert ended.code == 0, ended.err
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "The fitted curves of each method" in page
    assert page.count("the true curve and the fitted one") == 4
    assert "MSE of the row minus the column, on the same episodes" in page
    shown_to_people = re.sub(r"<script.*?</script>|<pre>.*?</pre>", "", page, flags=re.DOTALL)
    assert "accuracy" not in shown_to_people.casefold()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("shots: [5]", "ways: [5]\nshots: [5]", "ways: a regression has no classes: remove 'ways'"),
        (
            "eval: {episodes: 30}",
            "eval: {episodes: 30, strangers: 5}",
            "eval.strangers: a regression has neither classes nor images: remove 'strangers'",
        ),
        ("  sinusoid: {}", "  sinusoid: {}\n  glyphs: {}", "the ways are missing: 'glyphs' has classes"),
        (
            "  sinusoid: {}",
            "  sinusoid: {test_on: [glyphs]}\n  glyphs: {test_on: []}\nways: [2]",
            "datasets.sinusoid.test_on: 'sinusoid' is a regression and 'glyphs' a classification",
        ),
    ],
)
def test_ways_are_for_classes_only(old: str, new: str, message: str, metabench: Command) -> None:
    text = SUITE.replace(old, new)
    if "ways" in new.splitlines()[-1]:
        text = text.replace("\nways: [2]\nbackbones", "\nbackbones").replace("shots: [5]", "ways: [2]\nshots: [5]")
    Path("waves.yaml").write_text(text, encoding="utf-8")
    ended = metabench("run", "waves.yaml", "--output", "out")
    assert ended.code == 2
    assert message in ended.err
    assert not Path("out").exists()


def test_a_suite_may_hold_classes_and_regressions(metabench: Command) -> None:
    text = SUITE.replace("  sinusoid: {}", "  sinusoid: {}\n  glyphs: {}").replace("shots", "ways: [2, 3]\nshots")
    Path("both.yaml").write_text(text, encoding="utf-8")
    ended = metabench("run", "both.yaml", "--dry-run")
    assert ended.code == 0, ended.err
    assert "sinusoid · mlp · 5-shot" in ended.out + ended.err
    assert "glyphs · mlp · 3-way 5-shot" in ended.out + ended.err
    assert "sinusoid · mlp · 2-way" not in ended.out + ended.err


def test_a_source_needs_no_pack(metabench: Command) -> None:
    ended = metabench("data", "prepare", "sinusoid")
    assert (ended.code, ended.out) == (0, "sinusoid: its episodes are made, there is nothing to pack\n")
