"""Log cells to MLflow, at ``MLFLOW_TRACKING_URI`` or a local database."""

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

#: Longest value that every MLflow store accepts, in characters.
_MAX_VALUE_LENGTH = 500
#: Most metrics that MLflow accepts in one request.
_MAX_METRICS_PER_REQUEST = 1000


class MLflowLogger:
    """Writes one MLflow run for each cell.

    The experiment is ``MLFLOW_EXPERIMENT_NAME``, or by default has the name of the suite.
    """

    def __init__(self) -> None:
        self._client = MlflowClient()

    @hookimpl
    def metabench_cell_finished(self, output: Path, record: Mapping[str, Any]) -> None:
        """Write the cell's run."""
        now = round(datetime.fromisoformat(record["finished"]).timestamp() * 1000)
        last = record["train"]["steps"] if record["train"] else 0
        points = [Metric(name, value, now, last) for name, value in metrics(record).items()]
        points += [Metric(f"validation.{record['ranked_by']}", value, now, step) for step, value in validation(record)]
        tags = {
            "metabench.cell": record["cell"],
            "metabench.finished": record["finished"],
            "metabench.output": str(output.resolve()),
            "metabench.device": record["device"],
            "metabench.status": record["status"],
            "metabench.error": record["error"] or "",
        }
        short = {name: value[:_MAX_VALUE_LENGTH] for name, value in tags.items()}
        run = self._client.create_run(self._experiment(record), run_name=title(record), tags=short).info.run_id
        params = [Param(name, str(value)[:_MAX_VALUE_LENGTH]) for name, value in settings(record).items()]
        self._client.log_batch(run, params=params)
        for first in range(0, len(points), _MAX_METRICS_PER_REQUEST):
            self._client.log_batch(run, metrics=points[first : first + _MAX_METRICS_PER_REQUEST])
        self._client.set_terminated(run, "FAILED" if record["status"] == "failed" else "FINISHED")

    @hookimpl
    def metabench_run_finished(self, output: Path, records: Iterable[Mapping[str, Any]]) -> None:
        """Write cells that finished in earlier runs without this logger."""
        for record in records:
            same = " AND ".join(f"tags.`metabench.{key}` = '{record[key]}'" for key in ("cell", "finished"))
            if not self._client.search_runs([self._experiment(record)], same, max_results=1):
                self.metabench_cell_finished(output, record)

    def _experiment(self, record: Mapping[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or record["suite"]
        experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id if experiment else self._client.create_experiment(name))
