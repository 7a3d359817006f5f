"""Event files for TensorBoard, in the output directory: ``tensorboard --logdir OUTPUT/tensorboard``."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from metabench.specs import hookimpl
from metabench_plugins.loggers.metrics import metrics, settings, title, validation

#: The file that says, written last, which record is beside it.
_WRITTEN = "record.sha256"


class TensorBoardLogger:
    """Writes one TensorBoard run a cell: its validation curve, its figures, and its settings as hyper-parameters."""

    @hookimpl
    def metabench_cell_finished(self, output: Path, record: Mapping[str, Any]) -> None:
        """Write a cell, in the place of an earlier run of it."""
        folder = _folder(output, record)
        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(folder) as writer:
            for step, accuracy in validation(record):
                writer.add_scalar("validation/accuracy", accuracy, step)
            last = record["train"]["steps"] if record["train"] else 0
            for name, value in metrics(record).items():
                writer.add_scalar(name.replace(".", "/"), value, last)
            if record["error"]:
                writer.add_text("error", record["error"], last)
            if record["accuracy"]:
                outcome = {"hparam/accuracy": record["accuracy"]["mean"]}
                writer.add_hparams(settings(record), outcome, run_name=".")
        (folder / _WRITTEN).write_text(_digest(record), encoding="utf-8")

    @hookimpl
    def metabench_run_finished(self, output: Path, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the cells that were kept from a run without this logger."""
        for record in records:
            written = _folder(output, record) / _WRITTEN
            if not written.is_file() or written.read_text(encoding="utf-8") != _digest(record):
                self.metabench_cell_finished(output, record)


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _folder(output: Path, record: Mapping[str, Any]) -> Path:
    # The cell's hash keeps results of other settings, which have the same title, apart. Labels may hold anything.
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", title(record))
    return output / "tensorboard" / f"{name}-{record['cell'][:8]}"
