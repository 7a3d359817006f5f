"""Open runs in directories, archives and git revisions."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from metabench.errors import StoreError


@contextmanager
def opened(source: str) -> Iterator[Path]:
    """Yield a run's output directory; unpack it if needed.

    Unpacked copies are deleted afterwards.

    Args:
        source: an output directory, an archive of one (.zip, .tar, .tar.gz), or REVISION:PATH in the git repository of
            the current directory.

    Raises:
        StoreError: `source` does not exist, cannot be unpacked, or does not hold exactly one run.
    """
    if os.path.isdir(source):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        if os.path.isfile(source):
            _unpack(source, folder)
        elif ":" in source:
            _check_out(source, folder)
        else:
            raise StoreError(
                f"no directory {source}: give the --output of an earlier `metabench run`, an archive of it, or "
                "REVISION:PATH in git"
            )
        yield _run_below(Path(folder), source)


def _unpack(source: str, folder: str) -> None:
    try:
        if tarfile.is_tarfile(source):
            with tarfile.open(source) as archive:
                _extract(archive, folder)
        else:
            shutil.unpack_archive(source, folder)
    except (OSError, ValueError, tarfile.TarError) as error:
        raise StoreError(
            f"{source} is not a directory, and cannot be unpacked: {error}. Give an output directory, or an archive of "
            "one (.zip, .tar, .tar.gz)"
        ) from error


def _extract(archive: tarfile.TarFile, folder: str) -> None:
    """Extract an archive; refuse members outside the folder."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
        return
    # Python before 3.10.12 and 3.11.4 (Debian 12) has no filters.
    members = [member for member in archive if member.isfile() or member.isdir()]
    for member in members:
        if member.name.startswith("/") or ".." in Path(member.name).parts:
            raise ValueError(f"its member {member.name} lies outside the folder")
    archive.extractall(folder, members)


def _check_out(source: str, folder: str) -> None:
    revision, _, path = source.partition(":")
    archive = Path(folder) / "archive.tar"
    if revision.startswith("-"):  # git would take it for an option
        raise StoreError(f"{source}: a revision must not begin with '-'")
    # From here on, git sees the revision as a hash.
    tree = _git(source, ["rev-parse", "--verify", f"{revision}^{{tree}}"], f"git has no revision '{revision}'")
    _git(source, ["archive", f"--output={archive}", tree, "--", path], f"git has no {path} in {revision}")
    _unpack(str(archive), folder)
    archive.unlink()


def _git(source: str, arguments: Sequence[str], problem: str) -> str:
    """Return the output of a git command.

    Raises:
        StoreError: the command failed; the message is `problem` with git's reason.
    """
    try:
        completed = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{source!r}: cannot run git: {reason}. Install git, or give a directory") from error
    if completed.returncode:
        lines = completed.stderr.strip().splitlines()[-1:] or ["unknown"]
        raise StoreError(f"{problem}: {lines[0]}")
    return completed.stdout.strip()


def _run_below(folder: Path, source: str) -> Path:
    """Return the only output directory below `folder`."""
    runs = sorted({path.parent.parent for path in folder.rglob("cells/*.json")})
    if len(runs) != 1:
        raise StoreError(f"{source} holds {len(runs) or 'no'} runs: give a directory or archive with exactly one")
    return runs[0]
