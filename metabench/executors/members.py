"""The processes that share an output directory (``metabench run --share``).

``OUT/sharing/members/NONCE/`` holds, of each process, ``claim`` (which process it is; deleted when it leaves),
``heartbeat`` (a counter), ``settings`` (what all must agree on) and ``log`` (what it has finished, a line each). They
are those of one session: from the first process that enters alone until the last one leaves.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from metabench.errors import StoreError, UsageError
from metabench.executors.heartbeat import Heartbeat
from metabench.executors.job_files import Claim
from metabench.executors.job_folder import JOBS
from metabench.files import write_whole

#: The folder of a session in an output directory.
SHARING = "sharing"
#: Seconds to wait for another process that writes: far more than a record takes.
_MOST_SECONDS = 120.0
#: The files of locks: of the members together, and of their turns.
_LOCKS = (".lock", ".sharing.lock")


class News(BaseModel):
    """A line of a member's log.

    Attributes:
        cell: id of a cell that has its record; empty of a job.
        job: key of a job without cells that has ended; empty of a cell.
        problem: why that job failed; empty if it did not.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    cell: str = ""
    job: str = ""
    problem: str = ""


class Settings(RootModel[dict[str, str]]):
    """What all members must agree on, by name."""


class Seat:
    """The files of one member.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_bytes = 0

    @property
    def nonce(self) -> str:
        """Return the member's name."""
        return self.path.name

    def claim(self) -> Claim | None:
        """Return which process it is; None if it has left."""
        try:
            return Claim.model_validate_json((self.path / "claim").read_bytes())
        except (OSError, ValidationError):
            return None

    def heartbeat(self) -> str | None:
        """Return the counter of the heartbeat; None before the first beat."""
        try:
            return (self.path / "heartbeat").read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None

    def beat(self, count: int) -> None:
        """Write the counter of the heartbeat."""
        (self.path / "heartbeat").write_text(str(count), encoding="ascii")

    def settings(self) -> dict[str, str]:
        """Return the settings of the member; empty where they cannot be read."""
        try:
            return Settings.model_validate_json((self.path / "settings").read_bytes()).root
        except (OSError, ValidationError):
            return {}

    def write(self, claim: Claim, settings: Mapping[str, str]) -> None:
        """Write the folder; the claim comes last."""
        self.path.mkdir(parents=True)
        write_whole(self.path / "settings", Settings(dict(settings)).model_dump_json().encode())
        write_whole(self.path / "claim", claim.model_dump_json().encode())

    def tell(self, news: News) -> None:
        """Add a line to the log."""
        with open(self.path / "log", "ab") as file:
            file.write(news.model_dump_json(exclude_defaults=True).encode() + b"\n")

    def news(self) -> list[News]:
        """Return the lines that were added to the log since the last call."""
        try:
            with open(self.path / "log", "rb") as file:
                file.seek(self._read_bytes)
                complete, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return []
        self._read_bytes += len(complete) + len(newline)
        return [News.model_validate_json(line) for line in complete.splitlines()]

    def leave(self) -> None:
        """Note that the process has left; what it has finished stays."""
        (self.path / "claim").unlink(missing_ok=True)


class Members:
    """This process among those that share an output directory; made by `joined`.

    Attributes:
        output: the output directory.
        own: the seat of this process.
        expelled: whether the others have taken this process for dead.
    """

    def __init__(self, output: Path, own: Seat) -> None:
        self.output, self.own, self.expelled = output, own, False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep the others from writing records within the block.

        Raises:
            StoreError: another process does not end its writing, or the directory cannot be written.
        """
        with _turn(self.output):
            yield

    def seats(self) -> list[Seat]:
        """Return the seats of all members of the session, also of those that have left."""
        return seats(self.output)

    def expel(self) -> None:
        """Note that the others have taken this process for dead."""
        self.expelled = True


@contextmanager
def joined(output: Path, settings: Mapping[str, str], tidy: Callable[[], None]) -> Iterator[Members]:
    """Share an output directory within the block.

    A shared lock keeps out runs without ``--share``, as theirs keep out this one. Members are told apart by heartbeats.

    Args:
        output: the output directory, which is created.
        settings: what all members must agree on, by name, as people know it.
        tidy: called while no other process is there, by the first and by the last one; makes records of results that
            killed processes have left.

    Raises:
        StoreError: a run without ``--share`` goes on, others share the directory with other settings, or it cannot be
            written.
        UsageError: this system has no shared locks.
    """
    claim = Claim.of_this_process(0)
    with ExitStack() as held:
        with _messages(output):
            output.mkdir(parents=True, exist_ok=True)
            held.enter_context(_shared_lock(output))
            with _turn(output):
                members = _entered(output, claim, settings, tidy)
        heartbeat = Heartbeat(members.own, claim, lambda: None, members.expel)
        try:
            yield members
        finally:
            heartbeat.end()
            with _messages(output), _turn(output):
                _leave(output, members.own, tidy)


def _entered(output: Path, claim: Claim, settings: Mapping[str, str], tidy: Callable[[], None]) -> Members:
    """Enter a session, or begin one."""
    others = _others(output, None)
    for seat in others:
        _check_agreement(output, seat, settings)
    if not others:
        shutil.rmtree(output / SHARING, ignore_errors=True)  # a session whose processes were killed
        tidy()
    own = Seat(output / SHARING / "members" / claim.nonce)
    own.write(claim, settings)
    return Members(output, own)


def _leave(output: Path, own: Seat, tidy: Callable[[], None]) -> None:
    """Leave a session; the last one ends it, and deletes the directory of a run that was refused."""
    own.leave()
    if _others(output, own):
        return
    tidy()
    shutil.rmtree(output / SHARING, ignore_errors=True)
    with suppress(OSError):  # jobs are left that a killed process has begun
        (output / JOBS).rmdir()
    if {path.name for path in output.iterdir()} <= set(_LOCKS):
        for name in _LOCKS:
            (output / name).unlink(missing_ok=True)
        output.rmdir()


def _check_agreement(output: Path, seat: Seat, settings: Mapping[str, str]) -> None:
    """Refuse a process whose settings are not those of a member."""
    theirs, claim = seat.settings(), seat.claim()
    different = [
        f"{name} is {here} here, {theirs[name]} there"
        for name, here in settings.items()
        if theirs.get(name, here) != here
    ]
    if different and claim is not None:
        raise StoreError(
            f"process {claim.pid} on {claim.host.partition(' ')[0]} shares {output} with other settings "
            f"({'; '.join(different)}): run the same suite with the same options, or give another --output. If that "
            f"process was lost with its computer, delete {output / SHARING}"
        )


def _others(output: Path, own: Seat | None) -> list[Seat]:
    """Return the seats of other processes that may be alive."""
    others = [seat for seat in seats(output) if own is None or seat.nonce != own.nonce]
    return [seat for seat in others if (claim := seat.claim()) is not None and not claim.is_dead]


def seats(output: Path) -> list[Seat]:
    """Return the seats of all members of a session; none where there is no session."""
    try:
        return [Seat(path) for path in sorted((output / SHARING / "members").iterdir())]
    except OSError:
        return []


@contextmanager
def _turn(output: Path) -> Iterator[None]:
    """Take turns with the other members."""
    try:
        with FileLock(output / _LOCKS[1], timeout=_MOST_SECONDS):
            yield
    except Timeout as error:
        raise StoreError(
            f"another process keeps {output / '.sharing.lock'} locked for {_MOST_SECONDS:.0f} s: end it if it hangs, "
            "and run the same command again"
        ) from error


@contextmanager
def _shared_lock(output: Path) -> Iterator[None]:
    """Hold the lock of the directory together with the other members; it ends with the process."""
    fcntl = _locks()
    with open(output / _LOCKS[0], "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"another metabench run without --share is writing to {output}: wait for it, or give another --output"
            ) from error
        yield


def _locks() -> Any:
    """Return the module of locks that several processes can hold."""
    try:
        import fcntl
    except ImportError as error:
        raise UsageError("--share needs locks that several processes hold, which Windows lacks: use --jobs") from error
    return fcntl


@contextmanager
def _messages(output: Path) -> Iterator[None]:
    """Give an error of the file system its message."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write to {output}: {error.strerror or error}") from error
