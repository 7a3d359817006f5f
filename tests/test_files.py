"""Files named by users, and files of other origin."""

from __future__ import annotations

import os
import select
import stat
import threading
from pathlib import Path

import pytest

from metabench.files import atomic_file, is_foreign, read_regular, write_named

PAGE = "a page of metabench"


def test_a_named_file_is_written_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page"
    for text in (PAGE, f"{PAGE}, again"):
        write_named(path, text, "metabench")
        assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("content", ["mine", "metabenc"])
def test_a_foreign_file_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "page"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(OSError, match="metabench did not write it"):
        write_named(path, PAGE, "metabench")
    assert path.read_text(encoding="utf-8") == content


def test_an_empty_file_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "page"
    path.touch()
    write_named(path, PAGE, "metabench")
    assert path.read_text(encoding="utf-8") == PAGE


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link(tmp_path: Path, exists: bool) -> None:
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "page"
    target.parent.mkdir()
    if exists:
        target.touch()
    link.symlink_to(target)
    write_named(link, PAGE, "metabench")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == PAGE
    with atomic_file(link) as temporary:
        temporary.write_text("other", encoding="utf-8")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "other"


def test_a_pipe_with_a_reader_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []

    def read_all() -> None:
        select.select([descriptor], [], [])  # before the first writer, a read would end at once
        read.append(reader.read())

    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    text = PAGE * 100_000  # more than a pipe holds
    with os.fdopen(descriptor, encoding="utf-8") as reader:
        thread = threading.Thread(target=read_all, daemon=True)
        thread.start()
        write_named(pipe, text, "metabench")
        thread.join()
    assert read == [text]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_without_a_reader_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="No such device"):
        write_named(pipe, PAGE, "metabench")
    with pytest.raises(OSError, match="not a regular file"), atomic_file(pipe):
        pass
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_is_written_to(tmp_path: Path) -> None:
    write_named(Path(os.devnull), PAGE, "metabench")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write_named(link, PAGE, "metabench")
    assert link.is_symlink()
    with pytest.raises(OSError, match="No space left"):
        write_named(Path("/dev/full"), PAGE, "metabench")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="neither a file"):
        write_named(tmp_path, PAGE, "metabench")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    path, pipe = tmp_path / "file", tmp_path / "pipe"
    path.write_bytes(b"1")
    os.mkfifo(pipe)
    assert read_regular(path) == b"1"
    for other in (pipe, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(other)


def test_a_file_is_foreign_without_all_of_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not is_foreign(path, "a")
    path.write_text("a b", encoding="utf-8")
    assert not is_foreign(path, "a", "b")
    assert is_foreign(path, "a", "c")
    assert is_foreign(path), "without marks, the file would be empty"
