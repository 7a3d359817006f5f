"""Output directories: records and their files, each written whole or not at all.

An output directory holds ``suite.yaml`` (the resolved suite), ``plan.json`` (its cells), ``cells/ID.json`` (a record),
``cells/ID.npz`` (its per-episode results), ``cells/ID.png`` (its worst episode), ``outputs/ID.npz`` (the outputs of its
first episodes), ``weights/TRAINING.json`` and ``weights/TRAINING-SELECTION.safetensors`` (a finished training and the
weights that it has selected), ``checkpoints/TRAINING.pt`` (of an unfinished one), ``looks.json`` (how often test
episodes were looked at) and the leaderboard. Weights and checkpoints made by code that has changed since are renamed to
``other-code-HASH``, and never deleted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from metabench.errors import StoreError
from metabench.files import atomic_file, is_foreign, link_or_copy, read_regular
from metabench.planning.suite_text import write_suite_text
from metabench.records.episode_files import read_episodes, read_outputs, write_episodes, write_outputs
from metabench.records.looks import Looks, look_key
from metabench.records.record import SCHEMA_VERSION, SETTINGS, EpisodeResults, Invalidation, Outputs, Record
from metabench.records.tallies import Tallies, read_tallies
from metabench.records.trained import TrainingFiles
from metabench.records.values import Text
from metabench.text import one_line


class Planned(Protocol):
    """A cell of a plan."""

    @property
    def id(self) -> str:
        """Return the name of its record."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return all settings that determine the result, as plain data."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Return the labels by field of a record."""

    @property
    def problem(self) -> str:
        """Return why it cannot run; empty if it can."""


#: The file of the cells that a suite has.
_PLAN = "plan.json"
_PLANNED = TypeAdapter(list[dict[str, Text]])
#: The labels of cells whose settings are not known.
_NAMES = ("algorithm", "dataset", "backbone")
#: The files of a cell in ``cells/``.
_SUFFIXES = (".json", ".npz", ".png", ".traceback.txt")
#: The file with the number of looks at the test episodes, by `metabench.records.looks.look_key`.
_LOOKS = "looks.json"
#: The form of a cell's id (`metabench.planning.plan.Cell.id`), and so of the name of its files.
_ID = re.compile("[0-9a-f]{16}")
#: The first line of texts that metabench writes, by which it knows its own.
_HEADS = {
    "suite.yaml": "# The resolved suite of this run, written by metabench.\n",
    "leaderboard.md": "<!-- The leaderboard of this run, written by metabench. -->\n\n",
}
#: Words that each file of metabench by this name contains; further ones of files that metabench 0.1 wrote.
_MARKS = {
    **{name: (head,) for name, head in _HEADS.items()},
    "leaderboard.csv": ("dataset,backbone,way,shot,queries,algorithm,seed,",),
    "plan.json": ('"cell"',),
    ".lock": (),
    ".sharing.lock": (),
}
_MARKS_OF_0_1 = {
    "leaderboard.md": ("### ", " over the test episodes"),
    "suite.yaml": (
        "\ndescription: ",
        "\nbackbones:\n",
        "    use: ",
        "\n  validation_episodes: ",
        "\nseeds:\n- ",
        "\nprecision: ",
        "\neval:\n  episodes: ",
        "\n  inductive_episodes: ",
        "\ngate:\n  tolerance: ",
        "\n  slowdown: ",
    ),
}


class Store:
    """One output directory.

    Args:
        path: path of the directory, which is created on the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory against other runs; the lock ends with the process.

        Raises:
            StoreError: another run holds the lock, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
            self.clear_leftovers()
        except Timeout as error:
            raise StoreError(
                f"another metabench run is writing to {self.path}: wait for it, or give another --output; `metabench "
                "run --share` lets several of one suite write to it together"
            ) from error
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        try:
            yield
        finally:
            lock.release()

    def clear_leftovers(self) -> None:
        """Delete what processes that were killed have left; nobody else may write to the directory.

        Raises:
            StoreError: the directory cannot be written.
        """
        try:
            for folder in (self._cells, *(self.path / name for name in ("checkpoints", "weights", "outputs"))):
                for leftover in folder.glob(".*.tmp"):
                    leftover.unlink(missing_ok=True)
            for training in self.trainings():  # killed before it could delete its checkpoint
                TrainingFiles(self.path, training).drop_checkpoint()
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def check_own(self) -> None:
        """Check that a run overwrites no file that metabench did not write, and can count its looks.

        Raises:
            StoreError: the directory has a file of another origin by the name of one of a run's files, or the counts of
                looks are damaged.
        """
        self.looks()
        for name, marks in _MARKS.items():
            path = self.path / name
            try:
                foreign = is_foreign(path, *marks) and is_foreign(path, *_MARKS_OF_0_1.get(name, marks))
            except OSError as error:
                raise _cannot_write(self.path, error) from error
            if foreign:
                raise StoreError(
                    f"metabench did not write {path}, and does not overwrite it: move it, or give another --output"
                )

    def check_no_run(self) -> None:
        """Check that no run owns the directory: it would set other records aside.

        Raises:
            StoreError: the directory has the suite of a run.
        """
        if self.suite_text():
            raise StoreError(f"{self.path} holds a run, which would set the results aside: give another --output")

    def records(self) -> list[Record]:
        """Return all records; none if the directory does not exist.

        Raises:
            StoreError: a record cannot be read.
        """
        return list(self.records_by_name().values())

    def records_by_name(self, without: Collection[str] = ()) -> dict[str, Record]:
        """Return all records by file name without suffix, the id of the cell.

        A record with a wrong metric, or another cell's id, is returned as invalid (`Record.status`).

        Args:
            without: names of files to skip.

        Raises:
            StoreError: a record cannot be read.
        """
        paths = sorted(self._cells.glob("*.json"))
        return {path.stem: self._read(path) for path in paths if path.stem not in without}

    def record(self, cell: str) -> Record | None:
        """Return the record of a cell, as `records_by_name` does; None if there is none.

        Raises:
            StoreError: it cannot be read.
        """
        path = self._cells / f"{cell}.json"
        return self._read(path) if os.path.exists(path) else None

    def episodes(
        self,
        record: Record,
        groups: bool = True,
        metrics: Collection[str] | None = None,
        by_label: bool = False,
    ) -> EpisodeResults:
        """Return the per-episode results of a finished cell; see `read_episodes`."""
        return read_episodes(self._cells / f"{record.cell}.npz", record, groups, metrics, by_label)

    def tallies(self, cell: str) -> Tallies | None:
        """Return the totals of a cell by class and confidence; None if there are none; see `read_tallies`."""
        return read_tallies(self._cells / f"{cell}.npz")

    def outputs(self, cell: str) -> Outputs | None:
        """Return the kept outputs of a cell; None if there are none; see `read_outputs`."""
        return read_outputs(self._outputs(cell))

    def is_complete(self, record: Record) -> bool:
        """Return whether a cell's per-episode results are readable and agree with its record."""
        try:
            return record.primary is None or self.episodes(record) is not None
        except StoreError:
            return False

    def picture(self, cell: str) -> bytes | None:
        """Return the PNG of a cell's worst episode; None if there is none."""
        path = self._cells / f"{cell}.png"
        try:
            return read_regular(path) if os.path.exists(path) else None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error

    def write(self, record: Record, episodes: EpisodeResults | None = None, picture: bytes | None = None) -> None:
        """Write a record with its per-episode results, kept outputs and picture.

        With new results, outputs of earlier ones are deleted.

        Raises:
            StoreError: the directory cannot be written.
        """
        try:
            if episodes is not None:
                self._outputs(record.cell).unlink(missing_ok=True)
                if episodes.outputs is not None:
                    write_outputs(self._outputs(record.cell), episodes.outputs)
            if episodes is not None:  # before the record, which then never lacks them
                write_episodes(self._cells / f"{record.cell}.npz", episodes)
            if picture is not None:
                with atomic_file(self._cells / f"{record.cell}.png") as temporary:
                    temporary.write_bytes(picture)
            with atomic_file(self._cells / f"{record.cell}.json") as temporary:
                temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
            if record.status != "failed":  # an earlier attempt may have failed
                (self._cells / f"{record.cell}.traceback.txt").unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def take(self, record: Record, files: Mapping[str, Path]) -> None:
        """Write a record whose other files a worker has written; they stay where they are, too.

        Args:
            record: the record.
            files: by suffix, ``.npz`` (per-episode results), ``.outputs.npz`` and ``.png``, as there are.

        Raises:
            StoreError: the directory cannot be written.
        """
        places = {
            ".outputs.npz": self._outputs(record.cell),
            ".npz": self._cells / f"{record.cell}.npz",  # before the record, which then never lacks them
            ".png": self._cells / f"{record.cell}.png",
        }
        try:
            if ".npz" in files:
                self._outputs(record.cell).unlink(missing_ok=True)
            for suffix, place in places.items():
                if suffix in files:
                    link_or_copy(files[suffix], place)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self.write(record)

    def write_metrics(self, record: Record, episodes: EpisodeResults) -> None:
        """Write a record with further metrics, and their per-episode results; the outputs stay.

        Raises:
            StoreError: the directory cannot be written.
        """
        try:
            # An earlier record does not ask for the new arrays.
            write_episodes(self._cells / f"{record.cell}.npz", episodes)
            with atomic_file(self._cells / f"{record.cell}.json") as temporary:
                temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def count_look(self, record: Record) -> Record:
        """Count a test that has ended; return its record with the number of looks (`metabench.records.looks`).

        Raises:
            StoreError: the numbers cannot be read or written.
        """
        record = self.with_look(record)
        self.keep_look(record)
        return record

    def with_look(self, record: Record) -> Record:
        """Return the record of a test that has ended, with the number of looks.

        Raises:
            StoreError: the numbers cannot be read.
        """
        return record.model_copy(update={"looks": self.looks().get(look_key(record), 0) + 1})

    def keep_look(self, record: Record) -> None:
        """Keep the number of looks of a record, which may be kept already.

        Raises:
            StoreError: the numbers cannot be read or written.
        """
        looks, key = self.looks(), look_key(record)
        if record.looks is not None and record.looks > looks.get(key, 0):
            self.write_text(_LOOKS, json.dumps({**looks, key: record.looks}, indent=1) + "\n")

    def looks(self) -> dict[str, int]:
        """Return the number of looks by `metabench.records.looks.look_key`.

        Raises:
            StoreError: the file is damaged, or cannot be read.
        """
        path = self.path / _LOOKS
        if not os.path.exists(path):
            return {}
        try:
            return Looks.model_validate_json(read_regular(path)).root
        except (ValidationError, OSError) as error:
            raise StoreError(f"{path} is damaged: delete it, and counting begins again") from error

    def mark(self, cell: str, invalidation: Invalidation | None) -> None:
        """Mark a stored record as wrong, or take its mark away; all else in its file stays as it is.

        Args:
            cell: the id of the cell.
            invalidation: by whom and why; None takes the mark away.

        Raises:
            StoreError: there is no such record, or it cannot be read or written.
        """
        path = self._cells / f"{cell}.json"
        self._read(path)
        try:
            data = from_json(read_regular(path))
            data.pop("invalidated", None)
            if invalidation is not None:
                data["invalidated"] = invalidation.model_dump()
            with atomic_file(path) as temporary:
                temporary.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def forget(self, cell: str) -> None:
        """Delete the files of a cell, except the checkpoint of its training."""
        try:
            self._outputs(cell).unlink(missing_ok=True)
            for suffix in _SUFFIXES:
                (self._cells / f"{cell}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def supersede(self, records: Mapping[str, Record], plan: Sequence[Planned]) -> list[Record]:
        """Move records of earlier settings to ``superseded/``; return the others.

        A record stays if a cell of the plan has its settings, with any seed. The leaderboard must not mix settings. It
        also stays if a cell with a problem has its labels: the complete settings of that cell are not known. A record
        that confirms another one stays with it.

        Args:
            records: the result of `records_by_name`.
            plan: all cells of the current suite.
        """
        expected = {_without_seed(cell.identity) for cell in plan}
        unknown = {tuple(map(cell.labels.get, _NAMES)) for cell in plan if cell.problem}
        planned = {name for name, record in records.items() if _without_seed(record.identity) in expected}
        current = []
        for name, record in records.items():
            if name in planned or record.confirms in planned:
                current.append(record)
                continue
            if tuple(getattr(record, name) for name in _NAMES) in unknown:
                continue
            try:
                (self.path / "superseded").mkdir(exist_ok=True)
                for suffix in _SUFFIXES:
                    path = self._cells / f"{name}{suffix}"
                    if os.path.exists(path):
                        path.replace(self.path / "superseded" / path.name)
                if os.path.exists(self._outputs(name)):
                    self._outputs(name).replace(self.path / "superseded" / f"{name}.outputs.npz")
            except OSError as error:
                raise _cannot_write(self.path, error) from error
        return current

    def has_results(self, cell: str) -> bool:
        """Return whether a cell has per-episode results of this or an earlier run."""
        return os.path.exists(self._cells / f"{cell}.npz")

    def traceback_name(self, cell: str) -> str:
        """Return the path of a failed cell's traceback, relative to the directory."""
        return f"cells/{cell}.traceback.txt"

    def trainings(self) -> list[str]:
        """Return the ids of the trainings whose weights are kept."""
        return [path.stem for path in (self.path / "weights").glob("*.json")]

    def drop_weights(self, training: str, checkpoint: bool = False) -> None:
        """Delete the weights of a training.

        Args:
            training: the id of the training.
            checkpoint: whether to delete its checkpoint as well.

        Raises:
            StoreError: the directory cannot be written.
        """
        files = TrainingFiles(self.path, training)
        try:
            files.drop_weights()
            if checkpoint:
                files.drop_checkpoint()
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def suite_text(self) -> str:
        """Return the resolved suite of the last run, as YAML; empty if there is none."""
        path = self.path / "suite.yaml"
        try:
            return read_regular(path).decode() if os.path.exists(path) else ""
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"cannot read {path}: {error}") from error

    def write_suite(self, suite: Mapping[str, Any]) -> None:
        """Write the resolved suite."""
        self.write_text("suite.yaml", write_suite_text(suite))

    def write_plan(self, cells: Sequence[Planned]) -> None:
        """Write id, labels and seed of all cells of the suite, by which those without a record are known."""
        planned = [{"cell": cell.id, **cell.labels} for cell in cells]
        self.write_text(_PLAN, json.dumps(planned, indent=0, ensure_ascii=False) + "\n")

    def planned(self) -> list[dict[str, str]]:
        """Return id (``"cell"``) and labels of all cells of the last run's suite; none in runs of earlier versions.

        Raises:
            StoreError: the file is damaged.
        """
        path = self.path / _PLAN
        if not os.path.exists(path):
            return []
        try:
            return _PLANNED.validate_json(read_regular(path))
        except (OSError, ValidationError) as error:
            raise StoreError(f"{path} is damaged: delete it, and the next run writes it again") from error

    def checkpoints(self) -> list[str]:
        """Return the ids of trainings that were interrupted, and go on with the next run."""
        return sorted(path.stem for path in (self.path / "checkpoints").glob("*.pt"))

    @staticmethod
    def headed(name: str, text: str) -> str:
        """Return the content of a text file by its name: a line by which metabench knows its own, then the text."""
        return _HEADS.get(name, "") + text

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, by its path relative to the directory."""
        try:
            with atomic_file(self.path / name) as temporary:
                temporary.write_text(self.headed(name, text), encoding="utf-8")
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    @property
    def _cells(self) -> Path:
        return self.path / "cells"

    def _outputs(self, cell: str) -> Path:
        return self.path / "outputs" / f"{cell}.npz"

    def _read(self, path: Path) -> Record:
        advice = "delete it, and the cell will be run again"
        try:
            data = from_json(read_regular(path), allow_inf_nan=False)
        except ValueError as error:
            raise StoreError(f"the record {path} is damaged: {advice}") from error
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise StoreError(f"{path} was written by a newer metabench (schema {version}): update metabench")
        try:
            record = Record.model_validate(data)
            problem = "" if record.cell == path.stem else f"it is that of cell {record.cell[:40]}"
        except ValidationError as error:
            problem = _first_problem(error)
            try:  # a record of which only metrics are wrong still has its place in the tables
                record = Record.model_validate({**_settings_of(data), "status": "invalid"})
            except ValidationError as fatal:
                raise StoreError(f"{path} is not a record of metabench ({_first_problem(fatal)}): {advice}") from error
        if not _ID.fullmatch(path.stem):
            raise StoreError(f"{path} is not a record of metabench (its name is not the id of a cell): {advice}")
        if not problem:
            return (
                record if record.invalidated is None else record.invalid(f"the record {path} is {record.invalidated}")
            )
        return record.invalid(f"the record {path} is wrong ({problem}): run the suite again", path.stem)


def _settings_of(data: Any) -> dict[str, Any]:
    """Return what a record says besides its metrics."""
    return {name: data[name] for name in SETTINGS if name in data} if isinstance(data, dict) else {}


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return one_line(f"{place}: {first['msg']}" if place else first["msg"].removeprefix("Value error, "))


def _without_seed(identity: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in identity.items() if key != "seed"}, sort_keys=True)


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write to {path}: {error.strerror or error}. Finished cells are kept; free some space or make it "
        "writable and run the same command again, or give another --output"
    )
