"""The files of a training: its checkpoint, and the weights that it has selected."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from metabench.errors import StoreError
from metabench.files import atomic_file, read_regular
from metabench.records.stages import Usage, Validation
from metabench.records.values import Cost, Count, Part

#: The name of the snapshot after the last step.
LAST = "last"


class SnapshotFile(Part):
    """Weights of a training, selected by validation, or the last ones.

    Attributes:
        shape: way, shot and queries of the validation episodes; None for the last weights.
        params: test-time parameters in validation, as JSON.
        step: outer updates made before.
        validation: the validation curve.
        file: name of the file; several snapshots of one step share it. Empty if the validation failed.
        sha256: hash of the file.
        problem: why the validation failed; empty if it did not.
    """

    shape: tuple[int, int, int] | None = None
    params: str = "{}"
    step: Count = 0
    validation: list[Validation] = Field(default_factory=list)
    file: Annotated[str, Field(pattern=r"^[^/\\]*$")] = ""
    sha256: str = ""
    problem: str = ""


class Trained(Part):
    """A finished training.

    Attributes:
        identity: the settings of the training (`metabench.planning.cells.Training.identity`).
        origin: device, data, code and versions.
        step: number of outer updates.
        seconds: time of the timed outer updates.
        timed_steps: number of timed outer updates.
        peak_memory_bytes: peak memory; 0 where unknown.
        snapshots: the selected weights by name (`metabench.planning.cells.Selection.name`), and `LAST`.
        usage: what the training used; None where an earlier version made a part of it.
    """

    identity: dict[str, Any]
    origin: dict[str, str]
    step: Count
    seconds: Cost
    timed_steps: Count
    peak_memory_bytes: Count
    snapshots: dict[str, SnapshotFile]
    usage: Usage | None = None


@dataclass(frozen=True)
class TrainingFiles:
    """The places of a training's files in an output directory.

    Attributes:
        directory: the output directory.
        training: the id of the training.
    """

    directory: Path
    training: str

    @property
    def checkpoint(self) -> Path:
        """Return the file of an unfinished training."""
        return self.directory / "checkpoints" / f"{self.training}.pt"

    @property
    def weights(self) -> Path:
        """Return the folder of selected weights."""
        return self.directory / "weights"

    def snapshot(self, name: str) -> Path:
        """Return the file of a snapshot, by the snapshot's name."""
        return self.weights / f"{self.training}-{name}.safetensors"

    @property
    def summary(self) -> Path:
        """Return the file of the `Trained`, written after all weights."""
        return self.weights / f"{self.training}.json"

    def read(self) -> Trained | None:
        """Return the finished training; None if there is none.

        Raises:
            StoreError: its file is damaged.
        """
        if not os.path.exists(self.summary):
            return None
        try:
            return Trained.model_validate_json(read_regular(self.summary))
        except (ValidationError, OSError) as error:
            raise StoreError(
                f"{self.summary} is damaged: delete it, and the next run trains again; or run with --fresh"
            ) from error

    def write(self, trained: Trained) -> None:
        """Write the finished training.

        Raises:
            OSError: the file cannot be written.
        """
        with atomic_file(self.summary) as temporary:
            temporary.write_text(trained.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def set_aside(self, name: str) -> None:
        """Move the weights to a folder of this name within `weights`."""
        folder = self.weights / name
        folder.mkdir(exist_ok=True)
        for path in self._kept():
            shutil.move(path, folder / path.name)

    def drop_checkpoint(self) -> None:
        """Delete the checkpoint, if there is one."""
        self.checkpoint.unlink(missing_ok=True)

    def drop_weights(self) -> None:
        """Delete the weights, if there are any."""
        for path in self._kept():
            path.unlink(missing_ok=True)

    def _kept(self) -> list[Path]:
        # The summary first, so that an interruption leaves no summary without its weights.
        return [path for path in (self.summary, *self.weights.glob(f"{self.training}-*.safetensors")) if path.exists()]
