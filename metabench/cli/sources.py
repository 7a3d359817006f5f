"""Open runs in directories, archives and git revisions."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
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
    command = ["git", "archive", "--format=tar", f"--output={archive}", revision, "--", path]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise StoreError(f"{source}: cannot run git: {error.strerror}. Install git, or give a directory") from error
    if completed.returncode:
        reason = completed.stderr.strip().splitlines()[-1:] or ["unknown"]
        raise StoreError(f"git has no {path} in {revision}: {reason[0]}")
    _unpack(str(archive), folder)
    archive.unlink()


def _run_below(folder: Path, source: str) -> Path:
    """Return the only output directory below `folder`."""
    runs = sorted({path.parent.parent for path in folder.rglob("cells/*.json")})
    if len(runs) != 1:
        raise StoreError(f"{source} holds {len(runs) or 'no'} runs: give a directory or archive with exactly one")
    return runs[0]
