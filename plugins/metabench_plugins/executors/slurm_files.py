"""How the tasks of SLURM's arrays tell the executor what became of their jobs: files beside SLURM's logs."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from metabench.contracts import Condition, Ticket

#: Folder in the output directory for scripts, logs and these files.
_FOLDER = "slurm"


@dataclass(frozen=True)
class Handle:
    """A submitted job.

    Attributes:
        task: SLURM's id of the task that runs it, e.g. ``"12_3"``.
        shared_by: number of jobs that the task runs.
        stem: folder of these files, with the name of the job and the number of its attempt.
    """

    task: str
    shared_by: int
    stem: str

    @classmethod
    def of(cls, ticket: Ticket, task: str = "", shared_by: int = 1) -> Handle:
        """Return the handle of a job."""
        return cls(task, shared_by, str(folder_of(ticket) / f"{ticket.folder.name}.{ticket.attempt}"))

    @classmethod
    def read(cls, text: str) -> Handle:
        """Return the handle that a text in JSON gives."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @property
    def array(self) -> str:
        """Return SLURM's id of the array."""
        return self.task.partition("_")[0]

    @property
    def log(self) -> Path:
        """Return the file of its messages, as submitit names it."""
        return self._of_task("_0_log.err")

    def write_end(self, condition: Condition) -> None:
        """Write how its worker has ended: whole, or not at all."""
        temporary = Path(f"{self.stem}.writing")
        temporary.write_text(json.dumps({"reason": condition.reason, "by_machine": condition.by_machine}))
        temporary.rename(f"{self.stem}.end")

    def end(self) -> Condition | None:
        """Return how its worker has ended; None where the task has not said so."""
        try:
            said = json.loads(Path(f"{self.stem}.end").read_text())
        except FileNotFoundError:
            return None
        return Condition("died" if said["reason"] else "ended", said["reason"], said["by_machine"])

    def ask_to_stop(self) -> None:
        """Ask its task to stop this job, and to go on with the others."""
        with suppress(OSError):  # the run has ended, and its folder is gone
            Path(f"{self.stem}.stop").touch()

    @property
    def should_stop(self) -> bool:
        """Return whether its task was asked to stop this job."""
        return Path(f"{self.stem}.stop").exists()

    def clear(self, with_messages: bool) -> None:
        """Delete the files of a job whose task has ended.

        Args:
            with_messages: whether to delete the messages of its task, too, unless a worker has written any.
        """
        logs = [self._of_task("_0_log.err"), self._of_task("_0_log.out")]
        gone = [Path(f"{self.stem}.end"), Path(f"{self.stem}.stop")]
        gone += [self._of_task("_submitted.pkl"), self._of_task("_0_result.pkl")]
        with suppress(OSError):
            gone += logs if with_messages and logs[0].stat().st_size == 0 else []
        for path in gone:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _of_task(self, suffix: str) -> Path:
        return Path(self.stem).with_name(f"{self.task}{suffix}")


def folder_of(ticket: Ticket) -> Path:
    """Return the folder for scripts, logs and these files, in the output directory."""
    return ticket.folder.parent.parent / _FOLDER


def minutes(seconds: float) -> int:
    """Return SLURM's unit of time, rounded up."""
    return math.ceil(seconds / 60)
