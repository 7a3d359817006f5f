"""Read regular files; write files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeGuard

#: Lets `open` return at once where a pipe has no other end yet; Windows has no such files.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)

#: Seconds between two attempts to take a lock that another process holds.
_LOCK_SECONDS = 0.2
#: Suffixes of files of weights.
_WEIGHTS = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")


def is_weights_file(value: object) -> TypeGuard[str]:
    """Return whether the value of a parameter ``weights`` names a file: a text that ends as those of torch do."""
    return isinstance(value, str) and value.endswith(_WEIGHTS)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the hash of a regular file.

    Raises:
        OSError: as `read_regular`.
    """
    return hashlib.sha256(read_regular(path)).hexdigest()


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file.

    A pipe or a device in its place would be read forever.

    Raises:
        OSError: the file cannot be read, or is not regular.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.read()


def write_named(path: Path, text: str, mark: str) -> None:
    """Write a text to the place that the user named.

    A regular file is written whole or not at all; a pipe or character device is written to directly.

    Args:
        path: the place.
        text: the text.
        mark: words that every file of this kind by metabench contains; a file without them is not overwritten.

    Raises:
        OSError: the file cannot be written, or has other content.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISREG(mode):
        if is_foreign(path, mark):
            raise FileExistsError(errno.EEXIST, "it exists, and metabench did not write it", str(path))
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        # A reader that has seen enough closes its end.
        with contextlib.suppress(BrokenPipeError), open(path, "wb", opener=_open_at_once) as file:
            if _AT_ONCE:
                os.set_blocking(file.fileno(), True)
            file.write(text.encode())
    else:
        raise OSError(errno.EINVAL, "it is neither a file, nor a pipe or character device", str(path))


def is_foreign(path: Path, *marks: str) -> bool:
    """Return whether a file exists that metabench did not write: it has content, but not all of the marks.

    Args:
        path: the file.
        marks: words that the file would contain; without any, it would be empty.

    Raises:
        OSError: the file cannot be read, or is not regular.
    """
    try:
        content = read_regular(path)
    except FileNotFoundError:
        return False
    return bool(content) and not (marks and all(mark.encode() in content for mark in marks))


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` on success.

    If the block raises, the temporary file is removed and `path` stays as it was. A link stays a link: the file that it
    leads to is replaced.

    Raises:
        OSError: the file cannot be written, or `path` is a device, pipe or directory.
    """
    path = Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that is never changed a second name, in place of what has it; copy it where that cannot be.

    Raises:
        OSError: the file cannot be read, or its second name not be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without links
        with atomic_file(target) as copy:
            copy.write_bytes(source.read_bytes())
        return
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # it stays where the target was the same file already


def write_whole(path: Path, content: bytes) -> None:
    """Write a file of a run in progress: others see it whole, but a crash of the computer may lose it.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create_whole(path: Path, content: bytes) -> bool:
    """Create a file, whole, and return True; return False if it exists: of several processes one creates it.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.{os.urandom(4).hex()}.tmp")
    try:
        temporary.write_bytes(content)
        try:
            os.link(temporary, path)  # at once, also on NFS: a process that is killed here leaves no empty file
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            with open(path, "xb") as file:
                file.write(content)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; do not wait for the other end of a pipe."""
    return os.open(path, (flags | _AT_ONCE) & ~os.O_TRUNC & ~os.O_CREAT)


@contextlib.contextmanager
def alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file that several processes may make; it ends with its process.

    Args:
        path: the file; the lock is beside it.
        waiting: called again and again while another process holds the lock; may raise.

    Raises:
        OSError: the lock cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_suffix(".lock"))
    while True:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=_LOCK_SECONDS)
            break
        waiting()
    try:
        yield
    finally:
        lock.release()
