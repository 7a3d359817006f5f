"""Runs in MLflow, where MLflow is set up to keep them (``MLFLOW_TRACKING_URI``; by default a local database)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from metabench.specs import hookimpl
from metabench_plugins.loggers.metrics import metrics, settings, title, validation

#: The longest value that every MLflow store takes.
_LONGEST = 500
#: The most metrics that one request may hold.
_AT_ONCE = 1000


class MLflowLogger:
    """Writes one MLflow run a cell, in the experiment ``MLFLOW_EXPERIMENT_NAME``, or else the name of the suite."""

    def __init__(self) -> None:
        self._client = MlflowClient()

    @hookimpl
    def metabench_cell_finished(self, output: Path, record: Mapping[str, Any]) -> None:
        """Write a cell."""
        now = round(datetime.fromisoformat(record["finished"]).timestamp() * 1000)
        last = record["train"]["steps"] if record["train"] else 0
        points = [Metric(name, value, now, last) for name, value in metrics(record).items()]
        points += [Metric("validation.accuracy", value, now, step) for step, value in validation(record)]
        tags = {
            "metabench.cell": record["cell"],
            "metabench.finished": record["finished"],
            "metabench.output": str(output.resolve()),
            "metabench.device": record["device"],
            "metabench.error": record["error"] or "",
        }
        short = {name: value[:_LONGEST] for name, value in tags.items()}
        run = self._client.create_run(self._experiment(record), run_name=title(record), tags=short).info.run_id
        params = [Param(name, str(value)[:_LONGEST]) for name, value in settings(record).items()]
        self._client.log_batch(run, params=params)
        for first in range(0, len(points), _AT_ONCE):
            self._client.log_batch(run, metrics=points[first : first + _AT_ONCE])
        self._client.set_terminated(run, "FINISHED" if record["status"] == "ok" else "FAILED")

    @hookimpl
    def metabench_run_finished(self, output: Path, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the cells that were kept from a run without this logger."""
        for record in records:
            same = " AND ".join(f"tags.`metabench.{key}` = '{record[key]}'" for key in ("cell", "finished"))
            if not self._client.search_runs([self._experiment(record)], same, max_results=1):
                self.metabench_cell_finished(output, record)

    def _experiment(self, record: Mapping[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or record["suite"]
        experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id if experiment else self._client.create_experiment(name))
