"""Standard output and error: any encoding; a closed or full one ends no run."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import click

from metabench.text import plain, visible_lines

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Name of the error handler that writes what an encoding lacks in plain characters.
_PLAIN = "metabench.plain"


def say(text: str = "", err: bool = False, end: str = "\n") -> None:
    """Print a text whose control characters are escaped, except ends of lines.

    Args:
        text: the text.
        err: print to standard error.
        end: what follows the text.
    """
    stream = sys.stderr if err else sys.stdout
    click.echo(visible_lines(text) + end, file=stream, nl=False)


def output_encoding() -> str:
    """Return the encoding of standard output."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def terminal_width() -> int | None:
    """Return the terminal's columns; None where standard output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextmanager
def lasting_streams() -> Iterator[LastingOutput]:
    """Let standard output and error last to the end, whatever becomes of their readers and devices.

    Yields the output, whose `problem` tells afterwards what could not be written.
    """
    _open_missing_descriptors()
    codecs.register_error(_PLAIN, _in_plain_characters)
    before = sys.stdout, sys.stderr
    output, error = LastingOutput(), LastingOutput()
    sys.stdout, sys.stderr = output.take(before[0]), error.take(before[1])
    try:
        yield output
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


class LastingOutput(io.RawIOBase):
    """A file that is written as long as that succeeds; later data is dropped.

    Attributes:
        problem: the error that ended the writing; None if there was none, or if the reader has seen enough.
    """

    def __init__(self) -> None:
        self.problem: OSError | None = None
        self._file: io.FileIO | None = None
        self._ended = False

    def take(self, stream: TextIO) -> TextIO:
        """Return a stream in place of `stream`, which writes to the same file through this object."""
        file = getattr(getattr(stream, "buffer", None), "raw", getattr(stream, "buffer", None))
        if not isinstance(file, io.FileIO):  # no file, but e.g. a capture of tests or the console of Windows
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=_PLAIN)
            return stream
        self._file = file
        return io.TextIOWrapper(
            io.BufferedWriter(self), encoding=stream.encoding, errors=_PLAIN, line_buffering=bool(stream.line_buffering)
        )

    def write(self, data: ReadableBuffer, /) -> int | None:
        """Write the data, or drop it after an error."""
        assert self._file is not None
        if not self._ended:
            try:
                return self._file.write(data)
            except OSError as error:
                self._ended = True
                self.problem = None if isinstance(error, BrokenPipeError) else error
        return len(memoryview(data).cast("B"))

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file's descriptor."""
        assert self._file is not None
        return self._file.fileno()

    def isatty(self) -> bool:
        """Return whether the file is a terminal."""
        return self._file is not None and self._file.isatty()


def _open_missing_descriptors() -> None:
    """Open the null device in place of closed standard streams; files opened later would take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks; see `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(plain, error.object[error.start : error.end])), error.end
