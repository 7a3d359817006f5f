"""The files of a job on a node that does not see the output directory.

The node has them at the same path. They come with the job, and go back to the driver as they change.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from metabench.contracts import Job
from metabench.errors import StoreError
from metabench.files import write_whole

#: Files by their path in the output directory; None stands for a deleted one.
Files = Mapping[str, bytes | None]
#: Seconds between two checkpoints that are sent.
_CHECKPOINT_SECONDS = 30.0
#: File by which the folder of a job shows that it is not the driver's, but a copy on a node.
_MARK = "mirrored"
#: Files that mean nothing on another computer.
_OWN = ("claim", "heartbeat", _MARK)
#: Seconds in which a node sees a file of the driver, if it ever does: caches of NFS are late.
_LATE_SECONDS = 60.0


def sees(folder: Path, token: str) -> bool:
    """Return whether this computer sees the driver's folder of a job.

    Args:
        folder: the folder of the job.
        token: name of a file that the driver has written there.

    Raises:
        StoreError: there is another folder of this job here.
    """
    deadline = time.monotonic() + _LATE_SECONDS
    while not (folder / token).exists():
        if not folder.exists() or (folder / _MARK).exists():
            return False
        if time.monotonic() > deadline:
            raise StoreError(
                f"{folder} on {platform.node()} is of another run: give another --output, or delete it there"
            )
        time.sleep(1)
    return True


def files_to_send(folder: Path, job: Job) -> dict[str, bytes]:
    """Return the files that a job needs, by their path in the output directory.

    Args:
        folder: the folder of the job.
        job: the job.
    """
    output = folder.parents[1]
    names = [name for key in (job.key, *job.after) for name in _names(output, key, with_job=key == job.key)]
    return {name: (output / name).read_bytes() for name in names}


def write_files(output: Path, files: Files) -> None:
    """Write files of a job, each whole, in order; delete those that are None.

    Raises:
        StoreError: they cannot be written.
    """
    for name, content in files.items():
        path = output / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_whole(path, content)
        except OSError as error:
            raise StoreError(
                f"cannot write {path} on {platform.node()}: {error.strerror or error}; give an --output that every "
                "node can write to"
            ) from error


class Mirror:
    """The files of a job on its node.

    Args:
        folder: the folder of the job.
        files: the files that came with it.

    Raises:
        StoreError: they cannot be written here.
    """

    def __init__(self, folder: Path, files: Mapping[str, bytes]) -> None:
        self._output, self._key = folder.parents[1], folder.name
        if (folder / _MARK).exists():
            self.remove()  # what an earlier attempt has left here
        write_files(self._output, {f"jobs/{self._key}/{_MARK}": b"", **files})
        (folder / "results").mkdir(exist_ok=True)
        self._sent = {name: self._stamp(name) for name in _names(self._output, self._key)}
        self._checkpoint_sent = time.monotonic()

    def news(self) -> Files:
        """Return the files that have changed since they were sent; a checkpoint less often."""
        wait = time.monotonic() - self._checkpoint_sent < _CHECKPOINT_SECONDS
        return self._changed(without_checkpoint=wait)

    def last_news(self) -> Files:
        """Return the files that have changed or are gone, when the worker has ended."""
        changed = self._changed(without_checkpoint=False)
        return {**changed, **{name: None for name in self._sent if not (self._output / name).exists()}}

    def remove(self) -> None:
        """Delete the files of the job; weights of others, which it needed, stay."""
        for name in _names(self._output, self._key):
            (self._output / name).unlink(missing_ok=True)
        shutil.rmtree(self._output / "jobs" / self._key, ignore_errors=True)

    def _changed(self, without_checkpoint: bool) -> dict[str, bytes]:
        news = {}
        for name in _names(self._output, self._key):
            is_checkpoint = name.startswith("checkpoints")
            stamp = self._stamp(name)
            if stamp is None or self._sent.get(name) == stamp or (is_checkpoint and without_checkpoint):
                continue
            with suppress(OSError):  # it was replaced or deleted meanwhile: next time
                news[name] = (self._output / name).read_bytes()
                self._sent[name] = stamp
                if is_checkpoint:
                    self._checkpoint_sent = time.monotonic()
        return news

    def _stamp(self, name: str) -> tuple[int, int] | None:
        try:
            status = os.stat(self._output / name)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino


def _names(output: Path, key: str, with_job: bool = True) -> list[str]:
    """Return the paths of a job's files: those that say that others are complete come last.

    They are listed first, so that the others are there.

    Args:
        output: the output directory.
        key: key of the job.
        with_job: whether those of its folder are among them, and its checkpoint.
    """
    last = [name for name in _listed(output, key, with_job) if _says_complete(name)]
    first = [name for name in _listed(output, key, with_job) if not _says_complete(name)]
    return [*first, *last]


def _listed(output: Path, key: str, with_job: bool) -> Iterator[str]:
    patterns = [f"weights/{key}.json", f"weights/{key}-*"]
    if with_job:
        patterns += [f"jobs/{key}/*", f"jobs/{key}/results/*", f"checkpoints/{key}.pt"]
    for pattern in patterns:
        for path in sorted(output.glob(pattern)):
            if path.is_file() and not path.name.startswith(".") and path.name not in _OWN:
                yield path.relative_to(output).as_posix()


def _says_complete(name: str) -> bool:
    return name.endswith(".json") or os.path.basename(name).startswith("ended")
