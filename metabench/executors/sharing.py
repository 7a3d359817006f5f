"""The jobs of a shared output directory: each is run by one process at a time, and taken over if that dies.

``OUT/sharing/jobs/KEY/`` holds the owners of a job in turn: ``1`` names the member that had it first, ``2`` the next
one, and ``2.free`` says that the second has given it back. Each is created by one process only, and none is deleted, so
that two processes cannot both take over a job. What is finished, the logs of the members say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from metabench.contracts import Console, Job
from metabench.errors import StoreError
from metabench.executors.heartbeat import Observer
from metabench.executors.job_folder import JobFolder, left
from metabench.executors.members import SHARING, Members, News, Seat
from metabench.files import create_whole
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.text import counted

#: Seconds between two looks at the files of other processes, and how many times longer than a look that is at least.
_LOOK_SECONDS, _LOOKS_SHARE = 1.0, 20.0
#: Most seconds until a record that was written is seen: a cache (NFS) may keep that it was not there.
_MOST_DELAY = 300.0

_T = TypeVar("_T")


@dataclass
class _Held:
    """A job that another process has.

    Attributes:
        turn: number of its owner.
        owner: the member that has it.
        worker: watches the worker of the job.
        look_at: when to look at it again.
    """

    turn: int
    owner: str
    worker: Observer
    look_at: float = 0.0


@dataclass
class Sharing:
    """Which jobs this process has, and what all have finished.

    Attributes:
        members: the processes that share the directory.
        store: the directory.
        console: says that this one waits, and that the user asked to stop.
        clock: returns seconds.
        finished: ids of the cells that have their records, whoever made them.
        problems: by key, why a job without cells failed; empty if it did not.
    """

    members: Members
    store: Store
    console: Console
    clock: Callable[[], float] = time.monotonic
    finished: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)
    _turns: dict[str, int] = field(default_factory=dict)
    _held: dict[str, _Held] = field(default_factory=dict)
    _seats: dict[str, Seat] = field(default_factory=dict)
    _observers: dict[str, Observer] = field(default_factory=dict)
    _unseen: dict[str, float] = field(default_factory=dict)
    _look_at: float = 0.0
    _waits: bool = False

    @property
    def is_due(self) -> bool:
        """Return whether it is time to look at the files of the others."""
        return self.clock() >= self._look_at

    @property
    def has_news(self) -> bool:
        """Return whether others have finished cells whose records `look` has not returned yet."""
        return bool(self._unseen)

    def look(self) -> list[Record]:
        """Read what others have finished; return the records that are new.

        Raises:
            StoreError: the others have taken this process for dead, or a record of theirs cannot be read.
        """
        begun = self.clock()
        if self.members.expelled:
            raise StoreError(
                f"the other processes in {self.store.path} have taken this one for dead, because it was stopped for "
                "minutes: run the same command again"
            )
        self._refresh()
        records = []
        for cell, since in list(self._unseen.items()):
            record = self.store.record(cell)
            if record is not None:
                records.append(record)
                del self._unseen[cell]
            elif begun - since > _MOST_DELAY:
                raise StoreError(
                    f"{self.store.path} does not show the record of cell {cell}, which another process has written: "
                    "run the same command again"
                )
        self._look_at = begun + max(_LOOK_SECONDS, _LOOKS_SHARE * (self.clock() - begun))
        return records

    def remaining(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs with the cells that are not finished; those that nothing waits for are left out."""
        some = {job.key: self._with_rest(job) for job in jobs if left(job, self.finished)}
        needed = {key for job in some.values() for key in job.after}
        for job in reversed(jobs):  # a job comes after those that it needs
            if not job.cells and job.key in needed and job.key not in self.problems:
                some[job.key] = job
                needed.update(job.after)
        return [some[job.key] for job in jobs if job.key in some]

    def take(self, job: Job) -> Job | None:
        """Take a job that nobody has, or whose owner is lost; return it with the cells that are left, or None.

        Raises:
            StoreError: the directory cannot be written.
        """
        held = self._held.get(job.key)
        if not self._rest(job) or (held is not None and self.clock() < held.look_at):
            return None
        turn = self._last_turn(job.key, held.turn if held else 0)
        if turn and not self._file(job.key, f"{turn}.free").exists() and not self._is_lost(job.key, turn):
            return None
        if not self._write(lambda: self._create(job.key, turn + 1)):
            return None
        self._turns[job.key] = turn + 1
        held = self._held.pop(job.key, None)
        if held is not None and held.worker.is_lost:
            JobFolder.of(self.store.path, job.key).renew()
        self._refresh()  # the last owner may have finished some of it since
        rest = self._rest(job)
        if not rest:
            self.give_back(job.key)
        return rest[0] if rest else None

    def has(self, key: str) -> bool:
        """Return whether a job that was taken is still this process's: another may have taken it for dead."""
        return not self._file(key, str(self._turns[key] + 1)).exists()

    def give_back(self, key: str) -> None:
        """Give back a job, finished or not.

        Raises:
            StoreError: the directory cannot be written.
        """
        turn = self._turns.pop(key)
        self._write(lambda: self._file(key, f"{turn}.free").touch())

    def end(self, job: Job, problem: str) -> None:
        """Give back a job that has ended, and tell the others.

        Raises:
            StoreError: the directory cannot be written.
        """
        if not job.cells:
            self.problems[job.key] = problem
            self._write(lambda: self.members.own.tell(News(job=job.key, problem=problem)))
        self.give_back(job.key)

    def waits_for(self, jobs: Sequence[Job]) -> None:
        """Say once that this process waits for jobs of others, which it takes over if they die."""
        if jobs and not self._waits:
            cells = counted(sum(len(job.cells) for job in jobs), "cell")
            self.console.say(f"waiting for {cells} that other processes run, to take over if they die")
        self._waits = bool(jobs)

    def recorded(self, record: Record) -> Record | None:
        """Return the record of a cell that others have finished; None if it is to be made.

        The writing must be this process's (`Members.writing`). It may have been this very result, by a process that was
        killed before it could tell.
        """
        self._refresh()
        stored = self.store.record(record.cell)
        if stored is None or record.cell in self.finished:
            return stored
        if stored.model_copy(update={"looks": None}) != record:
            return None
        self.store.keep_look(stored)
        return stored

    def mend(self, cells: Iterable[str]) -> None:
        """Finish what a process that was killed has begun for cells whose results are on disk, and their records too.

        A process that came after it keeps such a record, and so does not ask for it again.

        Raises:
            StoreError: the directory cannot be written.
        """
        for cell in cells:
            with self.members.writing():
                record = None if cell in self.finished else self.store.record(cell)
                if record is not None and record.status == "ok":
                    self.store.keep_look(record)
                    self.tell(cell)

    def tell(self, cell: str) -> None:
        """Tell the others that a cell has its record.

        Raises:
            StoreError: the directory cannot be written.
        """
        if cell not in self.finished:
            self.finished.add(cell)
            self._write(lambda: self.members.own.tell(News(cell=cell)))

    def _refresh(self) -> None:
        """Read the new lines of all logs, and look at all heartbeats."""
        for found in self.members.seats():
            seat = self._seats.setdefault(found.nonce, found)
            for news in seat.news():
                if news.cell and news.cell not in self.finished:
                    self.finished.add(news.cell)
                    self._unseen[news.cell] = self.clock()
                elif news.job:
                    self.problems[news.job] = news.problem
            if seat.nonce != self.members.own.nonce:
                self._observers.setdefault(seat.nonce, Observer(seat)).look()

    def _with_rest(self, job: Job) -> Job:
        rest = left(job, self.finished)
        return job if len(rest) == len(job.cells) else job.with_cells(rest)

    def _rest(self, job: Job) -> list[Job]:
        """Return a job with the cells that are not finished; none if nothing is left of it."""
        if job.cells:
            return self.remaining([job])
        return [] if job.key in self.problems else [job]

    def _last_turn(self, key: str, known: int) -> int:
        """Return the number of the last owner of a job; 0 if nobody has had it."""
        turn = known
        while self._file(key, str(turn + 1)).exists():
            turn += 1
        return turn

    def _is_lost(self, key: str, turn: int) -> bool:
        """Look at the owner of a job and at its worker; return whether both are lost."""
        held = self._held.get(key)
        if held is None or held.turn != turn:
            folder = JobFolder.of(self.store.path, key)
            held = self._held[key] = _Held(turn, self._owner(key, turn), Observer(folder))
        held.worker.look()
        held.look_at = self.clock() + _LOOK_SECONDS
        return self._has_left(held.owner) and (held.worker.is_lost or not held.worker.has_claim)

    def _owner(self, key: str, turn: int) -> str:
        try:
            return self._file(key, str(turn)).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return ""

    def _has_left(self, nonce: str) -> bool:
        """Return whether a member has left or is lost."""
        if nonce not in self._observers:
            self._refresh()
        observer = self._observers.get(nonce)
        return observer is None or not observer.has_claim or observer.is_lost

    def _file(self, key: str, name: str) -> Path:
        return self.store.path / SHARING / "jobs" / key / name

    def _create(self, key: str, turn: int) -> bool:
        """Become the owner of a job; return False if another process was first."""
        self._file(key, "").mkdir(parents=True, exist_ok=True)
        return create_whole(self._file(key, str(turn)), self.members.own.nonce.encode())

    def _write(self, write: Callable[[], _T]) -> _T:
        try:
            return write()
        except OSError as error:
            raise StoreError(f"cannot write to {self.store.path}: {error.strerror or error}") from error
