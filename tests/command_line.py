"""Helpers for tests of the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from metabench.records.record import EpisodeResults, Record

SUITE = """\
name: small
datasets:
  glyphs: {}
backbones:
  conv4: {params: {channels: 2, downsample: stride}}
algorithms:
  protonet: {}
  siamese:
    params: {pairs: 8, units: 8}
ways: [2]
shots: [1]
queries: 2
train: {steps: 60, validate_every: 20, validation_episodes: 3}
eval: {episodes: 10}
profiles:
  smoke:
    train: {steps: 4}
"""

#: A dataset in a file, whose images have names.
NAMED = """
    from dataclasses import replace
    from metabench_plugins.datasets.glyphs import Glyphs

    class Named(Glyphs):
        def split(self, pack):
            named = {}
            for name, split in super().split(pack).items():
                names = [f"drawing {i % 20:02}" for i in range(len(split.rows))]
                named[name] = replace(split, image_names=names)
            return named
    """


class Distributions(Protocol):
    folder: Path
    modules: list[str]

    def add(self, name: str, source: str, entry: str | None = None) -> str: ...


@dataclass
class Ended:
    """Exit code and output of a command."""

    code: object
    out: str
    err: str


Command = Callable[..., Ended]


def ended(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ended:
    """Run a command in this process, and return how it ended."""
    from metabench.cli import main

    monkeypatch.setattr(sys, "argv", ["metabench", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    return Ended(end.value.code, printed.out, printed.err)


def everything_below(folder: Path) -> dict[str, int]:
    """Return the modification time of everything below a folder."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def essence(records: list[Record]) -> list[dict[str, Any]]:
    """Return the records without times, memory and environment, and without how often the directory saw their test."""
    stripped = []
    for record in records:
        data = record.model_dump()
        for name in ("eval", "peak_memory_bytes", "finished", "environment", "circumstances", "looks"):
            del data[name]
        if data["train"]:
            del data["train"]["seconds"], data["train"]["episodes_per_second"], data["train"]["usage"]
        stripped.append(data)
    return stripped


def same(one: EpisodeResults, other: EpisodeResults) -> bool:
    """Return whether two results are equal, bit for bit."""
    pairs = ((one.figures["accuracy"], other.figures["accuracy"]), (one.groups, other.groups))
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def assert_refused(ended: Ended, parts: list[str]) -> None:
    """Assert exit code 2 and all parts of the message."""
    assert ended.code == 2
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert [part for part in parts if part not in ended.err] == []
