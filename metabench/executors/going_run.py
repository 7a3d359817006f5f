"""What others may know of a run that goes on: ``run.json`` in ``OUT/jobs/``, written by its driver."""

from __future__ import annotations

import platform
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metabench.executors.job_files import Claim
from metabench.executors.job_folder import JOBS
from metabench.executors.members import seats
from metabench.files import write_whole
from metabench.records.values import Text


class GoingRun(BaseModel):
    """A run and its driver.

    Attributes:
        driver: the process of the driver.
        host: name of its computer, for people.
        started: when it began.
        executor: name of the executor.
        options: the executor's options, as plain data.
        slots: jobs at once; None where the executor queues them itself.
        outlives_driver: whether jobs go on without the driver.
        cells: ids of the cells that are to have a record.
        expected: expected seconds of cells by id; empty if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    driver: Claim
    host: Text
    started: Text
    executor: Text
    options: dict[str, Any] = Field(default_factory=dict)
    slots: int | None = None
    outlives_driver: bool = False
    cells: list[str]
    expected: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def of_this_process(cls, **fields: Any) -> GoingRun:
        """Return the run that this process drives."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(driver=Claim.of_this_process(0), host=platform.node(), started=now, **fields)

    @classmethod
    def read(cls, output: Path) -> GoingRun | None:
        """Return the run of an output directory; None where none goes on, or was killed."""
        return _read(output / JOBS / "run.json")

    @classmethod
    def sharing(cls, output: Path) -> list[GoingRun]:
        """Return the runs that share an output directory, and have not surely ended."""
        runs = [_read(seat.path / "run.json") for seat in seats(output) if seat.claim() is not None]
        return [run for run in runs if run is not None and not run.driver.is_dead]

    def write(self, folder: Path) -> None:
        """Write it into a folder, ``jobs/`` or that of a member (`metabench.executors.members`).

        Raises:
            OSError: the directory cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "run.json", self.model_dump_json().encode())


def _read(path: Path) -> GoingRun | None:
    try:
        return GoingRun.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def end_run(output: Path) -> None:
    """Delete what is known of a run whose jobs have ended; keep it as long as a job goes on."""
    root = output / JOBS
    with suppress(OSError):
        if not any(path.is_dir() for path in root.iterdir()):
            (root / "run.json").unlink(missing_ok=True)
            root.rmdir()
