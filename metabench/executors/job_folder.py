"""The folder of a job: how the driver and the workers of a run speak to one another.

``OUT/jobs/KEY/`` holds ``job`` (the pickled job, made by the driver for its own workers), ``job.json`` (the same for
people and programs), ``handle`` (by which the executor knows it), ``claim`` (the worker that has it), ``heartbeat`` (a
counter), ``progress``, ``results/CELL.ATTEMPT.*`` (a result a cell and attempt: JSON, npz, PNG) and ``ended.ATTEMPT``
(how the worker ended). Each is written whole. The folder goes when the cells have their records.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from metabench.contracts import Attempt, Cell, Job
from metabench.errors import StoreError
from metabench.executors.job_files import Claim, Ended, Progress, Result, Submitted
from metabench.files import atomic_file, create_whole, write_whole
from metabench.records.episode_files import write_episodes, write_outputs

#: The folder of all jobs in an output directory.
JOBS = "jobs"


_Model = TypeVar("_Model", bound=BaseModel)


class JobFolder:
    """The folder of one job.

    Args:
        path: its path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, output: Path, key: str) -> JobFolder:
        """Return the folder of a job by its key."""
        return cls(Path(os.path.abspath(output)) / JOBS / key)

    @classmethod
    def all(cls, output: Path) -> list[JobFolder]:
        """Return the folders of all jobs of an output directory."""
        root = Path(os.path.abspath(output)) / JOBS
        return [cls(path) for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []

    @property
    def key(self) -> str:
        """Return the key of the job."""
        return self.path.name

    # ------------------------------------------------------------------------------------------- the driver

    def write_job(self, job: Job, submitted: Submitted) -> None:
        """Write the job, before it is submitted."""
        (self.path / "results").mkdir(parents=True, exist_ok=True)
        write_whole(self.path / "job", pickle.dumps(job))
        write_whole(self.path / "job.json", submitted.model_dump_json().encode())

    def submitted(self) -> Submitted | None:
        """Return the job as others see it; None where there is none."""
        return self._read("job.json", Submitted)

    def write_handle(self, handle: str) -> None:
        """Write the handle of the job that has been submitted."""
        write_whole(self.path / "handle", handle.encode())

    def handle(self) -> str | None:
        """Return the handle of the job; None before it was submitted."""
        content = self._content("handle")
        return None if content is None else content.decode()

    def cancel(self) -> None:
        """Note that a user has cancelled the job: it is not tried again."""
        (self.path / "cancelled").touch()

    def take_up(self) -> bool:
        """Return whether a user had cancelled the job; from now on it is not cancelled."""
        was_cancelled = self.is_cancelled
        (self.path / "cancelled").unlink(missing_ok=True)
        return was_cancelled

    @property
    def is_cancelled(self) -> bool:
        """Return whether a user has cancelled the job."""
        return (self.path / "cancelled").exists()

    @property
    def goes_on(self) -> bool:
        """Return whether the job waits or runs; one that a queue has interrupted starts again."""
        submitted = self.submitted()
        if submitted is None or self.is_cancelled:
            return False
        ended = self.ended(submitted.attempt)
        return ended is None or ended.how == "interrupted"

    def release(self, claim: Claim) -> None:
        """Delete the claim of a worker that has ended, unless another one has the job by now."""
        if self.claim() == claim:
            (self.path / "claim").unlink(missing_ok=True)

    def renew(self) -> None:
        """Delete what a worker that has ended said of itself."""
        for name in ("claim", "heartbeat", "progress"):
            (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    # ------------------------------------------------------------------------------------------- the worker

    def job(self) -> Job:
        """Return the job; only workers of the driver that wrote it read it."""
        job: Job = pickle.loads((self.path / "job").read_bytes())
        return job

    def begin(self, attempt: int) -> None:
        """Delete how an earlier life of an attempt ended, of a job that was queued again."""
        (self.path / f"ended.{attempt}").unlink(missing_ok=True)

    def take(self, claim: Claim) -> bool:
        """Write the claim of a worker; return whether no other has one."""
        return create_whole(self.path / "claim", claim.model_dump_json().encode())

    def beat(self, count: int) -> None:
        """Write the counter of the heartbeat."""
        (self.path / "heartbeat").write_text(str(count), encoding="ascii")

    def write_progress(self, progress: Progress) -> None:
        """Write what the worker does now."""
        write_whole(self.path / "progress", progress.model_dump_json().encode())

    def write_result(self, attempt: Attempt, number: int) -> None:
        """Write the result of a cell; its JSON comes last.

        Raises:
            StoreError: the folder cannot be written.
        """
        stem = self.path / "results" / f"{attempt.record.cell}.{number}"
        episodes = attempt.episodes
        try:
            if episodes is not None:
                if episodes.outputs is not None:
                    write_outputs(stem.with_name(f"{stem.name}.outputs.npz"), episodes.outputs)
                write_episodes(stem.with_name(f"{stem.name}.npz"), episodes)
            if attempt.picture is not None:
                with atomic_file(stem.with_name(f"{stem.name}.png")) as temporary:
                    temporary.write_bytes(attempt.picture)
            result = Result(record=attempt.record, traceback=attempt.traceback, has_episodes=episodes is not None)
            write_whole(stem.with_name(f"{stem.name}.json"), result.model_dump_json().encode())
        except OSError as error:
            raise StoreError(f"cannot write to {self.path}: {error.strerror or error}") from error

    def write_end(self, attempt: int, ended: Ended) -> None:
        """Write how the worker ended."""
        write_whole(self.path / f"ended.{attempt}", ended.model_dump_json().encode())

    # ------------------------------------------------------------------------------------------- both, and others

    def claim(self) -> Claim | None:
        """Return the worker that has the job; None where nobody has it."""
        return self._read("claim", Claim)

    def heartbeat(self) -> str | None:
        """Return the counter of the heartbeat; None before the first beat."""
        content = self._content("heartbeat")
        return None if content is None else content.decode("ascii", "replace")

    def progress(self) -> Progress | None:
        """Return what the worker does now; None before it has said so."""
        return self._read("progress", Progress)

    def ended(self, attempt: int) -> Ended | None:
        """Return how a worker ended; None where it has not said so."""
        return self._read(f"ended.{attempt}", Ended)

    def results(self) -> dict[str, str]:
        """Return the complete results: by cell, name of the files of its first one."""
        found: dict[str, str] = {}
        with suppress(OSError):
            for name in sorted(os.listdir(self.path / "results"), key=_by_attempt):
                if name.endswith(".json"):
                    found.setdefault(name.partition(".")[0], name.removesuffix(".json"))
        return found

    def result(self, name: str) -> Result | None:
        """Return a result by the name of its files; None where it cannot be read."""
        return self._read(f"results/{name}.json", Result)

    def files(self, name: str) -> Mapping[str, Path]:
        """Return the files of a result by their suffix: ``.npz``, ``.outputs.npz`` and ``.png``, as there are."""
        paths = {suffix: self.path / "results" / f"{name}{suffix}" for suffix in (".npz", ".outputs.npz", ".png")}
        return {suffix: path for suffix, path in paths.items() if path.exists()}

    def _content(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return None

    def _read(self, name: str, model: type[_Model]) -> _Model | None:
        """Return a file's content; None where it is missing or damaged, as an unfinished one on NFS may be."""
        content = self._content(name)
        try:
            return None if content is None else model.model_validate_json(content)
        except ValidationError:
            return None


def left(job: Job, finished: Collection[str]) -> Sequence[Cell]:
    """Return the cells of a job without a result."""
    return [cell for cell in job.cells if cell.id not in finished]


def _by_attempt(name: str) -> tuple[int, str]:
    number = name.split(".")[1] if name.count(".") > 1 else ""
    return (int(number) if number.isdecimal() else 0, name)
