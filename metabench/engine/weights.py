"""The weights that a training has selected, in files that other tests and suites may use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from metabench.api import Algorithm
from metabench.engine.checkpoints import TrainingProgress, ValidationCurve, other_code, writing_weights
from metabench.errors import CellFailed, StoreError, in_one_line
from metabench.files import atomic_file, sha256_of
from metabench.planning.cells import Choice, Selection, Training
from metabench.records.stages import Usage, Validation
from metabench.records.trained import LAST, SnapshotFile, Trained, TrainingFiles

#: The part of a state dict that an algorithm shares with others of the same backbone.
_BACKBONE = "backbone."


def keep_weights(
    algorithm: Algorithm,
    progress: TrainingProgress,
    training: Training,
    origin: Mapping[str, str],
    files: TrainingFiles,
) -> Trained:
    """Write the selected and the last weights of a finished training.

    Args:
        algorithm: the algorithm with the last weights.
        progress: the progress of the training.
        training: the training.
        origin: device, data, code and versions that the weights depend on.
        files: the places of the files.

    Raises:
        StoreError: a file cannot be written.
    """
    states = {selection.name: (curve.best_step, curve.best_state) for selection, curve in progress.going.items()}
    states[LAST] = (progress.step, algorithm.state_dict())
    written: dict[int, tuple[str, str]] = {}
    for name, (step, state) in states.items():
        if step not in written:
            path = files.snapshot(name)
            with writing_weights(path):
                written[step] = path.name, _write(state, path)
    snapshots = {}
    for selection, curve in progress.curves.items():
        file, digest = ("", "") if curve.problem else written[curve.best_step]
        snapshots[selection.name] = _snapshot(selection, curve, file, digest)
    file, digest = written[progress.step]
    snapshots[LAST] = SnapshotFile(step=progress.step, file=file, sha256=digest)
    trained = Trained(
        identity=training.identity,
        origin=dict(origin),
        step=progress.step,
        seconds=progress.seconds,
        timed_steps=progress.timed_steps,
        peak_memory_bytes=progress.peak_memory_bytes,
        snapshots=snapshots,
        usage=None if progress.used is None else Usage.model_validate(progress.used),
    )
    with writing_weights(files.summary):
        files.write(trained)
        files.drop_checkpoint()
    return trained


def kept_weights(files: TrainingFiles, origin: Mapping[str, str]) -> Trained | None:
    """Return a finished training of this origin; None if there is none.

    Weights of another origin (device, data, code) are moved to a folder of their own, so that they are not overwritten.

    Raises:
        StoreError: its file is damaged.
    """
    trained = files.read()
    if trained is not None and trained.origin != dict(origin):
        with writing_weights(files.summary):
            files.set_aside(other_code(trained.origin))
        return None
    return trained


def nearest_snapshot(trained: Trained, selection: Selection) -> str:
    """Return the name of the snapshot that a test uses.

    That is the one selected in episodes of the test; else, of the snapshots of the same way, that with the nearest
    shot, then with the same test-time parameters, then with the nearest number of queries; else the last one.
    """
    if selection.name in trained.snapshots:
        return selection.name

    def distance(name: str) -> tuple[int, bool, int, str]:
        snapshot = trained.snapshots[name]
        assert snapshot.shape is not None
        _, shot, queries = snapshot.shape
        other_params = snapshot.params != selection.params
        return abs(shot - selection.shape.shot), other_params, abs(queries - selection.shape.queries), name

    same_way = [
        name
        for name, snapshot in trained.snapshots.items()
        if snapshot.shape is not None and snapshot.shape[0] == selection.shape.way and not snapshot.problem
    ]
    return min(same_way, key=distance, default=LAST)


def load_snapshot(algorithm: Algorithm, trained: Trained, name: str, files: TrainingFiles, whole: bool) -> None:
    """Load weights that a training has selected.

    Args:
        algorithm: the algorithm to change.
        trained: the finished training.
        name: name of the snapshot.
        files: the places of its files.
        whole: whether the algorithm is the one that was trained; else its backbone is loaded, and of its own weights
            those with the same names and shapes.

    Raises:
        CellFailed: the validation of the snapshot failed, or the weights do not fit the algorithm.
        StoreError: the file is missing or damaged.
    """
    snapshot = trained.snapshots[name]
    if snapshot.problem:
        raise CellFailed(snapshot.problem)
    path = files.weights / snapshot.file
    load_weights(algorithm, path, snapshot.sha256, whole)


def load_weights(algorithm: Algorithm, path: Path, sha256: str, whole: bool) -> None:
    """Load the weights of a file; arguments and errors as in `load_snapshot`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read the weights {path}: {error.strerror}; --fresh trains again") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StoreError(f"the weights {path} have changed since they were written: delete them, or run with --fresh")
    try:
        state = safetensors.torch.load(content)
    except Exception as error:  # of safetensors, in Rust
        raise CellFailed(f"{path} is no file of weights in safetensors' format ({in_one_line(error)})") from error
    load_state(algorithm, state, str(path), whole)


def check_unchanged(backbone: Choice) -> None:
    """Check that the file of weights that a backbone names has the content that the plan has seen.

    Raises:
        StoreError: it has another one, or cannot be read.
    """
    if not backbone.weights_sha256:
        return
    path = backbone.params["weights"]
    try:
        unchanged = sha256_of(path) == backbone.weights_sha256
    except OSError as error:
        raise StoreError(f"cannot read the weights {path}: {error.strerror}") from error
    if not unchanged:
        raise StoreError(f"the weights {path} have changed since the run began: start it again")


def load_state(algorithm: Algorithm, state: Mapping[str, Tensor], source: str, whole: bool) -> None:
    """Load a state dict; arguments and errors as in `load_snapshot`.

    Args:
        algorithm: the algorithm to change.
        state: the state dict.
        source: the name of its source, for error messages.
        whole: as in `load_snapshot`.
    """
    own = algorithm.state_dict()
    needed = [name for name in own if whole or name.startswith(_BACKBONE)]
    missing = [name for name in needed if name not in state]
    unlike = [name for name in needed if name in state and state[name].shape != own[name].shape]
    if missing or unlike:
        name = (missing or unlike)[0]
        found = "no such weight" if missing else f"one of shape {tuple(state[name].shape)}"
        raise CellFailed(
            f"the weights {source} do not fit the {'algorithm' if whole else 'backbone'}, whose '{name}' has shape "
            f"{tuple(own[name].shape)}: they have {found}"
        )
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    algorithm.load_state_dict({**own, **fitting})


def _snapshot(selection: Selection, curve: ValidationCurve, file: str, digest: str) -> SnapshotFile:
    shape = selection.shape
    return SnapshotFile(
        shape=(shape.way, shape.shot, shape.queries),
        params=selection.params,
        step=curve.best_step,
        validation=[Validation(step=step, value=value) for step, value in curve.points],
        file=file,
        sha256=digest,
        problem=curve.problem,
    )


def _write(state: Mapping[str, object], path: Path) -> str:
    """Write a state dict; return the hash of the file.

    Raises:
        CellFailed: a part of the state is no tensor.
    """
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if len(tensors) < len(state):
        other = next(name for name in state if name not in tensors)
        raise CellFailed(
            f"the algorithm's state_dict has '{other}', which is no tensor: make it a parameter or a buffer, so that "
            "its weights can be kept"
        )
    # Cloned, because safetensors refuses tensors that share their memory.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
    }
    content = safetensors.torch.save(tensors)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
