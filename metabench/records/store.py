"""Output directories: records and their files, each written whole or not at all.

An output directory holds ``suite.yaml`` (the resolved suite), ``cells/ID.json`` (a record), ``cells/ID.npz`` (its
per-episode results), ``cells/ID.png`` (its worst episode), ``checkpoints/TRAINING.pt`` (of unfinished cells) and the
leaderboard.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from metabench.errors import StoreError
from metabench.files import atomic_file
from metabench.records.record import SCHEMA_VERSION, EpisodeResults, Record

if TYPE_CHECKING:  # reading records must not import numpy
    import numpy as np
    import numpy.typing as npt

    from metabench.planning.plan import Cell


#: The files of a cell in ``cells/``.
_SUFFIXES = (".json", ".npz", ".png", ".traceback.txt")


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
            for folder in (self._cells, self.path / "checkpoints"):
                for leftover in folder.glob(".*.tmp"):  # from a process that was killed while writing
                    leftover.unlink(missing_ok=True)
        except Timeout as error:
            raise StoreError(
                f"another metabench run is writing to {self.path}: wait for it, or give another --output"
            ) from error
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        try:
            yield
        finally:
            lock.release()

    def records(self) -> list[Record]:
        """Return all records; none if the directory does not exist.

        Raises:
            StoreError: a record cannot be read.
        """
        return list(self.records_by_name().values())

    def records_by_name(self, without: Collection[str] = ()) -> dict[str, Record]:
        """Return all records by file name without suffix, the id of the cell.

        Args:
            without: names of files to skip.

        Raises:
            StoreError: a record cannot be read.
        """
        paths = sorted(self._cells.glob("*.json"))
        return {path.stem: self._read(path) for path in paths if path.stem not in without}

    def episodes(self, cell: str) -> EpisodeResults:
        """Return the per-episode results of a finished cell.

        Raises:
            StoreError: they are missing or damaged.
        """
        return EpisodeResults(**self._arrays(cell, accuracies="float64", groups="int64"))

    def accuracies(self, cell: str) -> npt.NDArray[np.float64]:
        """Return the accuracies of `episodes`; half the time of reading both.

        Raises:
            StoreError: they are missing or damaged.
        """
        return self._arrays(cell, accuracies="float64")["accuracies"]

    def _arrays(self, cell: str, **types: str) -> dict[str, npt.NDArray[Any]]:
        """Return per-episode results by name, with the given types."""
        import numpy as np

        path = self._cells / f"{cell}.npz"
        try:
            # Read at once: np.load alone asks the system for a dozen small pieces.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: np.asarray(file[name], dtype=of) for name, of in types.items()}
            dimensions = {"accuracies": 1, "groups": 2}
            if any(array.ndim != dimensions[name] for name, array in arrays.items()):
                raise ValueError(f"shapes {', '.join(str(array.shape) for array in arrays.values())}")
            lengths = {len(array) for array in arrays.values()}
            if len(lengths) != 1 or min(lengths) < 2:
                raise ValueError(f"lengths {', '.join(map(str, sorted(lengths)))}")
            return arrays
        except FileNotFoundError as error:
            raise StoreError(f"there are no per-episode results {path}: run the suite again") from error
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, BadZipFile, zlib.error) as error:
            raise StoreError(f"cannot read the per-episode results {path} ({error}): run the suite again") from error

    def is_complete(self, record: Record) -> bool:
        """Return whether a cell's per-episode results are readable and of the recorded number."""
        try:
            return record.accuracy is None or len(self.episodes(record.cell).accuracies) == record.accuracy.episodes
        except StoreError:
            return False

    def picture(self, cell: str) -> bytes | None:
        """Return the PNG of a cell's worst episode; None if there is none."""
        path = self._cells / f"{cell}.png"
        try:
            return path.read_bytes() if os.path.exists(path) else None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error

    def write(self, record: Record, episodes: EpisodeResults | None = None, picture: bytes | None = None) -> None:
        """Write a record with its per-episode results and picture.

        Raises:
            StoreError: the directory cannot be written.
        """
        import numpy as np

        try:
            if episodes is not None:  # before the record, which then never lacks them
                with (
                    atomic_file(self._cells / f"{record.cell}.npz") as temporary,
                    open(temporary, "wb") as file,
                ):
                    np.savez_compressed(file, accuracies=episodes.accuracies, groups=episodes.groups)
            if picture is not None:
                with atomic_file(self._cells / f"{record.cell}.png") as temporary:
                    temporary.write_bytes(picture)
            with atomic_file(self._cells / f"{record.cell}.json") as temporary:
                temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
            if record.status == "ok":  # an earlier attempt may have failed
                (self._cells / f"{record.cell}.traceback.txt").unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def forget(self, cell: str) -> None:
        """Delete the files of a cell, except the checkpoint of its training."""
        try:
            for suffix in _SUFFIXES:
                (self._cells / f"{cell}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def supersede(self, records: Mapping[str, Record], plan: Sequence[Cell]) -> list[Record]:
        """Move records of earlier settings to ``superseded/``; return the others.

        A record stays if a cell of the plan has its settings, with any seed. The leaderboard must not mix settings.

        Args:
            records: the result of `records_by_name`.
            plan: all cells of the current suite.
        """
        expected = {_without_seed(cell.identity) for cell in plan}
        current = []
        for name, record in records.items():
            if _without_seed(record.identity) in expected:
                current.append(record)
                continue
            try:
                (self.path / "superseded").mkdir(exist_ok=True)
                for suffix in _SUFFIXES:
                    path = self._cells / f"{name}{suffix}"
                    if os.path.exists(path):
                        path.replace(self.path / "superseded" / path.name)
            except OSError as error:
                raise _cannot_write(self.path, error) from error
        return current

    def traceback_name(self, cell: str) -> str:
        """Return the path of a failed cell's traceback, relative to the directory."""
        return f"cells/{cell}.traceback.txt"

    def checkpoint(self, training: str) -> Path:
        """Return the checkpoint path of a training (`metabench.planning.plan.Cell.training_id`)."""
        return self.path / "checkpoints" / f"{training}.pt"

    def checkpoints(self) -> set[str]:
        """Return the trainings that have a checkpoint."""
        return {path.stem for path in (self.path / "checkpoints").glob("*.pt")}

    def drop_checkpoint(self, training: str) -> None:
        """Delete the checkpoint of a training, if there is one."""
        try:
            self.checkpoint(training).unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def suite_text(self) -> str:
        """Return the resolved suite of the last run, as YAML; empty if there is none."""
        path = self.path / "suite.yaml"
        try:
            return path.read_text(encoding="utf-8") if os.path.exists(path) else ""
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"cannot read {path}: {error}") from error

    def write_suite(self, suite: Mapping[str, Any]) -> None:
        """Write the resolved suite."""
        self.write_text("suite.yaml", yaml.safe_dump(dict(suite), sort_keys=False, allow_unicode=True))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, by its path relative to the directory."""
        try:
            with atomic_file(self.path / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    @property
    def _cells(self) -> Path:
        return self.path / "cells"

    def _read(self, path: Path) -> Record:
        advice = "delete it, and the cell will be run again"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = data.get("schema_version") if isinstance(data, dict) else None
            if isinstance(version, int) and version > SCHEMA_VERSION:
                raise StoreError(f"{path} was written by a newer metabench (schema {version}): update metabench")
            return Record.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise StoreError(f"{path} is not a record of metabench ({place}: {first['msg']}): {advice}") from error
        except (ValueError, RecursionError) as error:
            raise StoreError(f"the record {path} is damaged: {advice}") from error
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _without_seed(identity: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in identity.items() if key != "seed"}, sort_keys=True)


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write to {path}: {error.strerror or error}. Finished cells are kept; free some space or make it "
        "writable and run the same command again, or give another --output"
    )
