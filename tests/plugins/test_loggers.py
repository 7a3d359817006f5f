from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import Command, Distributions, assert_refused
from metabench.records.record import Record
from metabench.records.store import Store

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'metabench[mlflow]'")
event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="tensorboard is not installed: pip install 'metabench[tensorboard]'",
)

# MLflow's own use of SQLAlchemy, about which its users can do nothing.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

ALL = ("run", "small.yaml", "--profile", "smoke", "--output", "out")
ONE = (*ALL, "--only", "algorithm=protonet")


@pytest.fixture(autouse=True)
def _store_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def records() -> list[Record]:
    return Store(Path("out")).records()


def expected(record: Record) -> dict[str, float]:
    assert record.primary is not None
    assert record.eval is not None
    assert record.parameters is not None
    return {
        "accuracy.value": record.primary.value,
        "accuracy.ci95": record.primary.ci95,
        "eval.latency_ms.p95": record.eval.latency_ms.p95,
        "parameters": record.parameters,
    }


def curve(record: Record) -> list[tuple[int, float]]:
    assert record.train is not None
    return [(point.step, point.value) for point in record.train.validation]


def mlflow_runs(experiment: str = "small") -> list[Any]:
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def tensorboard_runs() -> list[Any]:
    found = []
    for folder in sorted(Path("out/tensorboard").iterdir()):
        events = event_accumulator.EventAccumulator(str(folder))
        events.Reload()
        found.append(events)
    return found


# ---------------------------------------------------------------------------------------------- TensorBoard


def test_tensorboard_reads_metrics_and_curve_of_each_cell(metabench: Command) -> None:
    assert metabench(*ALL, "--log", "tensorboard").code == 0
    runs = tensorboard_runs()
    assert len(runs) == 2
    for record in records():
        (run,) = (run for run in runs if record.cell[:8] in run.path)
        assert record.algorithm in run.path
        for name, value in expected(record).items():
            (event,) = run.Scalars(name.replace(".", "/"))
            assert (event.step, event.value) == (4, pytest.approx(value))
        points = [(event.step, event.value) for event in run.Scalars("validation/accuracy")]
        assert points == [(step, pytest.approx(value)) for step, value in curve(record)]
        assert run.Scalars("hparam/accuracy")[-1].value == pytest.approx(expected(record)["accuracy.value"])


def test_a_cell_that_is_run_afresh_replaces_its_tensorboard_run(metabench: Command) -> None:
    for _ in range(2):
        assert metabench(*ONE, "--fresh", "--log", "tensorboard").code == 0
    (run,) = tensorboard_runs()
    assert len(run.Scalars("accuracy/value")) == 1


# --------------------------------------------------------------------------------------------------- MLflow


def test_mlflow_stores_settings_metrics_and_curve_of_each_cell(metabench: Command) -> None:
    assert metabench(*ALL, "--log", "mlflow").code == 0
    runs = {run.data.tags["metabench.cell"]: run for run in mlflow_runs()}
    assert len(runs) == 2
    for record in records():
        run = runs[record.cell]
        assert run.info.status == "FINISHED"
        assert run.info.run_name == f"{record.algorithm} glyphs 2-way-1-shot conv4 seed 0"
        assert run.data.params["algorithm.name"] == record.algorithm
        assert run.data.params["train.steps"] == "4"
        assert {name: run.data.metrics[name] for name in expected(record)} == pytest.approx(expected(record))
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "validation.accuracy")
        assert [(point.step, point.value) for point in history] == curve(record)


def test_mlflow_takes_the_experiment_that_the_environment_names(
    metabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert metabench(*ONE, "--log", "mlflow").code == 0
    assert (len(mlflow_runs("mine")), len(mlflow_runs("small"))) == (1, 0)


# ----------------------------------------------------------------------------------------------------- both


def test_cells_that_were_finished_without_a_logger_are_logged_once(metabench: Command) -> None:
    assert metabench(*ONE).code == 0
    assert not Path("out/tensorboard").exists()
    for _ in range(2):
        assert metabench(*ALL, "--log", "tensorboard", "--log", "mlflow").code == 0
    assert (len(tensorboard_runs()), len(mlflow_runs())) == (2, 2)


def test_a_failed_cell_is_logged_as_failed(metabench: Command) -> None:
    suite = Path("small.yaml")
    suite.write_text(suite.read_text().replace("protonet: {}", "protonet: {params: {lr: 1.0e+30}}"))
    assert metabench(*ONE, "--log", "mlflow", "--log", "tensorboard").code == 1
    (run,) = mlflow_runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["metabench.error"] == records()[0].error
    assert "error/text_summary" in tensorboard_runs()[0].Tags()["tensors"]


def test_a_skipped_cell_is_not_logged_as_failed(metabench: Command) -> None:
    suite = Path("small.yaml")
    suite.write_text(suite.read_text().replace("protonet: {}", "protonet: {use: maml, train: {way: 3}}"))
    assert metabench(*ONE, "--log", "mlflow", "--log", "tensorboard").code == 0
    (run,) = mlflow_runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["metabench.status"] == "skipped"
    assert run.data.tags["metabench.error"] == records()[0].error
    assert "error/text_summary" in tensorboard_runs()[0].Tags()["tensors"]


def test_a_label_with_odd_characters_stays_in_its_folder(metabench: Command) -> None:
    suite = Path("small.yaml")
    suite.write_text(suite.read_text().replace("protonet: {}", '"../../odd": {use: protonet}'))
    assert metabench(*ALL, "--log", "tensorboard").code == 0
    assert len(tensorboard_runs()) == 2


def test_an_unknown_logger_is_refused_before_anything_runs(metabench: Command) -> None:
    assert_refused(metabench(*ALL, "--log", "tensorbord"), ["no logger 'tensorbord' (did you mean 'tensorboard'?)"])
    assert not Path("out").exists()


def test_a_logger_without_its_library_says_what_to_install(metabench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "metabench_plugins.loggers.mlflow", raising=False)
    monkeypatch.setitem(sys.modules, "mlflow.entities", None)
    assert_refused(metabench(*ALL, "--log", "mlflow"), ["the logger 'mlflow'", "pip install 'metabench[mlflow]'"])
    assert not Path("out").exists()


def test_a_failing_logger_does_not_stop_the_run(
    metabench: Command, distributions: Distributions, caplog: pytest.LogCaptureFixture
) -> None:
    distributions.add(
        "quarrelsome",
        """
        from metabench.specs import LoggerSpec, hookimpl

        class Logger:
            @hookimpl
            def metabench_cell_finished(self, record):
                raise RuntimeError("the tracker is away")

        @hookimpl
        def metabench_loggers():
            return [LoggerSpec("quarrelsome", "fake_quarrelsome:Logger", "made up")]
        """,
    )
    assert "quarrelsome" in metabench("list", "loggers").out
    ended = metabench(*ONE, "--log", "quarrelsome")
    assert ended.code == 0
    assert "metabench_cell_finished of logger quarrelsome failed: RuntimeError: the tracker is away" in caplog.text
    assert len(records()) == 1


def test_a_tensorboard_run_follows_the_record_that_is_there(metabench: Command) -> None:
    assert metabench(*ONE, "--log", "tensorboard").code == 0
    assert metabench(*ONE, "--fresh").code == 0
    assert metabench(*ONE, "--log", "tensorboard").code == 0
    (run,) = tensorboard_runs()
    (record,) = records()
    assert run.Scalars("eval/latency_ms/p50")[0].value == pytest.approx(
        record.eval.latency_ms.p50 if record.eval else None
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [("import no_such_library\nclass Mine: pass", "no_such_library"), ("class Mine: pass", "implements no hook")],
)
def test_a_logger_in_a_file_is_refused_with_its_reason(metabench: Command, source: str, message: str) -> None:
    Path("tracker.py").write_text(source, encoding="utf-8")
    assert_refused(metabench(*ALL, "--log", "./tracker.py:Mine"), [message])
