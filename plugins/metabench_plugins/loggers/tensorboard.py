"""Log cells to TensorBoard: ``tensorboard --logdir OUTPUT/tensorboard``."""

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

#: File with the hash of the logged record, written after everything else.
_RECORD_HASH = "record.sha256"


class TensorBoardLogger:
    """Writes one TensorBoard run for each cell.

    A run has the validation curve, the metrics, and the settings as hyper-parameters.
    """

    @hookimpl
    def metabench_cell_finished(self, output: Path, record: Mapping[str, Any]) -> None:
        """Write the cell's event file, replacing an earlier one."""
        folder = _folder(output, record)
        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(folder) as writer:
            for step, value in validation(record):
                writer.add_scalar(f"validation/{record['ranked_by']}", value, step)
            last = record["train"]["steps"] if record["train"] else 0
            for name, value in metrics(record).items():
                writer.add_scalar(name.replace(".", "/"), value, last)
            if record["error"]:
                writer.add_text("error", record["error"], last)
            primary = record["metrics"].get(record["ranked_by"])
            if primary:
                outcome = {f"hparam/{record['ranked_by']}": primary["value"]}
                writer.add_hparams(settings(record), outcome, run_name=".")
        (folder / _RECORD_HASH).write_text(_digest(record), encoding="utf-8")

    @hookimpl
    def metabench_run_finished(self, output: Path, records: Iterable[Mapping[str, Any]]) -> None:
        """Write cells that finished in earlier runs without this logger."""
        for record in records:
            record_hash = _folder(output, record) / _RECORD_HASH
            if not record_hash.is_file() or record_hash.read_text(encoding="utf-8") != _digest(record):
                self.metabench_cell_finished(output, record)


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _folder(output: Path, record: Mapping[str, Any]) -> Path:
    # The cell's hash separates cells with the same title but other settings. Labels may contain any character.
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", title(record))
    return output / "tensorboard" / f"{name}-{record['cell'][:8]}"
