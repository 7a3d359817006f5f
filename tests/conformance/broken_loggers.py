"""Loggers that each break one rule of the contract."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from metabench.specs import hookimpl

Record = Mapping[str, Any]


class Sound:
    """Writes a line of JSON for each cell; breaks no rule."""

    @hookimpl
    def metabench_run_started(self, output: Path, suite: Mapping[str, Any], cells: int) -> None:
        (output / "log").mkdir(exist_ok=True)
        json.dumps([suite, cells])

    @hookimpl
    def metabench_cell_finished(self, output: Path, record: Record) -> None:
        self.write(output, record)

    @hookimpl
    def metabench_run_finished(self, output: Path, records: Iterable[Record]) -> None:
        for record in records:
            self.write(output, record)

    def write(self, output: Path, record: Record) -> None:
        (output / "log" / f"{record['cell']}.json").write_text(json.dumps(record), encoding="utf-8")


class OneHook:
    """Listens to the end of a run only; breaks no rule."""

    @hookimpl
    def metabench_run_finished(self) -> None: ...


# ------------------------------------------------------------------------------------------- one broken rule each


class Hookless:
    def metabench_run_started(self) -> None: ...


class Demanding(Sound):
    def __init__(self, address: str) -> None:
        self.address = address


class Exiting(Sound):
    def __init__(self) -> None:
        raise SystemExit(3)


class Misspelt(Sound):
    @hookimpl
    def metabench_cell_ended(self, record: Record) -> None: ...


class WrongArgument(Sound):
    @hookimpl
    def metabench_run_started(self, folder: Path) -> None: ...  # type: ignore[override]


class Optimistic(Sound):
    def write(self, output: Path, record: Record) -> None:
        if record["status"] == "failed" and record["error"]:
            _ = record["metrics"]["accuracy"]["value"]
        super().write(output, record)


class Exclusive(Sound):
    @hookimpl
    def metabench_run_started(self, output: Path, suite: Mapping[str, Any], cells: int) -> None:
        (output / "log").mkdir()


class Curious(Sound):
    def write(self, output: Path, record: Record) -> None:
        if record["status"] == "ok":
            round(record["train"]["episodes_per_second"])
        super().write(output, record)


class Talkative(Sound):
    def write(self, output: Path, record: Record) -> None:
        if record["status"] == "failed":
            len(record["error"])
        super().write(output, record)


class Waiting(Sound):
    released: ClassVar[threading.Event] = threading.Event()

    @hookimpl
    def metabench_cell_finished(self, output: Path, record: Record) -> None:
        self.released.wait()


class Lingering(Sound):
    released: ClassVar[threading.Event] = threading.Event()

    @hookimpl
    def metabench_run_started(self, output: Path, suite: Mapping[str, Any], cells: int) -> None:
        super().metabench_run_started(output, suite, cells)
        threading.Thread(target=self.released.wait, name="sender", daemon=False).start()
