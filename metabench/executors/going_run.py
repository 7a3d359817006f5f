"""What others may know of a run that goes on: ``OUT/jobs/run.json``, written by its driver."""

from __future__ import annotations

import platform
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metabench.executors.job_files import Claim
from metabench.executors.job_folder import JOBS
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
        try:
            return cls.model_validate_json((output / JOBS / "run.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, output: Path) -> None:
        """Write it.

        Raises:
            OSError: the directory cannot be written.
        """
        (output / JOBS).mkdir(parents=True, exist_ok=True)
        write_whole(output / JOBS / "run.json", self.model_dump_json().encode())


def end_run(output: Path) -> None:
    """Delete what is known of a run whose jobs have ended; keep it as long as a job goes on."""
    root = output / JOBS
    with suppress(OSError):
        if not any(path.is_dir() for path in root.iterdir()):
            (root / "run.json").unlink(missing_ok=True)
            root.rmdir()
