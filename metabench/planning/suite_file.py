"""Read a YAML suite into a validated, frozen `Suite`.

Every error names the file, the line and the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from metabench.errors import SuiteError, nearest, shown
from metabench.files import is_weights_file
from metabench.planning.exclusions import check_exclusions
from metabench.planning.grids import expand_grids
from metabench.planning.sources import SOURCES, check_sources, check_targets
from metabench.planning.suite import NAME, AlgorithmEntry, Entry, Gate, Suite
from metabench.planning.suite_text import KeyPath, Reader
from metabench.registry import file_classes
from metabench.registry.configs import first_problem

#: Most bytes of a suite file.
MAX_BYTES = 1_000_000
#: Keys of a suite file that define profiles; a resolved suite does not have them.
_PROFILE_KEYS = ("profiles", "default_profile")


@dataclass(frozen=True)
class SuiteFile:
    """The unchecked content of a suite file.

    Attributes:
        path: the file.
        data: the content as plain values.
        places: for each key path, the key path to show in error messages, and its line; 0 in a suite without lines.
    """

    path: Path
    data: Mapping[str, Any]
    places: Mapping[KeyPath, tuple[KeyPath, int]] = field(repr=False)

    @property
    def profiles(self) -> list[str]:
        """Return the names of the profiles, in file order."""
        return list(self.data.get("profiles", {}))

    @property
    def default_profile(self) -> str:
        """Return the name of the default profile; empty without one."""
        return str(self.data.get("default_profile") or "")

    def error(self, path: KeyPath, message: str) -> SuiteError:
        """Return an error with the file, line and key path."""
        while path and path not in self.places:
            path = path[:-1]
        keys, line = self.places.get(path, ((), 1))
        where = f"{self.path}{f':{line}' if line else ''}: " + (f"{'.'.join(map(shown, keys))}: " if keys else "")
        return SuiteError(where + message)


def read_suite(path: Path) -> SuiteFile:
    """Read a suite file; `resolve` checks its content.

    Raises:
        SuiteError: the file cannot be read, is too large, or is not plain YAML.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SuiteError(f"{path}: {size / 1e6:.1f} MB is too large for a suite (at most {MAX_BYTES / 1e6:.0f} MB)")
        content = path.read_bytes()
        text = content.decode()
    except OSError as error:
        raise SuiteError(f"cannot read the suite {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SuiteError(f"{path}:{line}: not a text file in UTF-8 (byte {error.start})") from error
    reader = Reader(path)
    data = reader.read(text)
    if not isinstance(data, dict):
        raise SuiteError(f"{path}:1: a suite is a mapping of keys to values (name, datasets, algorithms, …)")
    file = SuiteFile(path, data, reader.places)
    if not isinstance(data.get("profiles", {}), dict):
        raise file.error(("profiles",), "a mapping of profile names to changed settings is needed")
    return file


def resolve(file: SuiteFile, profile: str | None = None) -> tuple[Suite, SuiteFile]:
    """Apply a profile, expand grids, and validate the suite.

    Args:
        file: the result of `read_suite`.
        profile: name of the profile, ``""`` for none; None takes the file's `default_profile`.

    Returns:
        The suite, and a `SuiteFile` with the profile merged in and grids expanded, whose `places` point into the
        original file.

    Raises:
        SuiteError: with the file, line, key path and nearest known key.
    """
    known_keys = [key for key in Suite.model_fields if key != "profile"] + list(_PROFILE_KEYS)
    for key in file.data:
        if key not in known_keys:
            raise file.error(
                (key,), f"unknown key '{shown(key)}'{nearest(key, known_keys)}. Known keys: {', '.join(known_keys)}"
            )
    resolved = expand_grids(with_profile(file, profile, ("algorithms", "datasets", "backbones")))
    suite = validated(resolved, Suite)
    check_exclusions(suite, resolved)
    check_sources(suite, resolved)
    check_targets(suite, resolved)
    return _with_absolute_files(suite, file.path.parent), resolved


def with_profile(file: SuiteFile, profile: str | None, labelled: Sequence[str]) -> SuiteFile:
    """Merge a profile into a suite; its name becomes the key ``profile``.

    Args:
        file: the result of `read_suite`.
        profile: name of the profile, ``""`` for none; None takes the file's `default_profile`.
        labelled: sections that map labels to settings, to which a profile adds no label.

    Returns:
        The suite without its profiles; its `places` point into the original file.

    Raises:
        SuiteError: there is no such profile, or it is no mapping.
    """
    profiles = file.data.get("profiles", {})
    name = file.default_profile if profile is None else profile
    for label in profiles:
        if not re.fullmatch(NAME, label):
            raise file.error(
                ("profiles", label), "a profile's name must consist of letters, digits, '.', '_' and '-' only"
            )
    if name and name not in profiles:
        place: KeyPath = ("default_profile",) if profile is None else ()
        known = ", ".join(map(str, profiles)) or "none"
        raise file.error(place, f"no profile '{shown(name)}'{nearest(name, map(str, profiles))}. Profiles: {known}")
    base = {key: value for key, value in file.data.items() if key not in _PROFILE_KEYS}
    places = dict(file.places)
    if name:
        changes = profiles[name] or {}
        if not isinstance(changes, dict):
            raise file.error(("profiles", name), "a mapping of changed settings is needed")
        _check_labels(file, base, changes, name, labelled)
        base = _merge(base, changes)
        prefix: KeyPath = ("profiles", name)
        for path, place_and_line in file.places.items():
            if path[:2] == prefix and len(path) > 2:
                places[path[2:]] = place_and_line
    return SuiteFile(file.path, {**base, "profile": name}, places)


_Model = TypeVar("_Model", bound=BaseModel)
_Entry = TypeVar("_Entry", bound=Entry)


def validated(file: SuiteFile, model: type[_Model]) -> _Model:
    """Return the suite as a model of pydantic.

    Raises:
        SuiteError: with the file, line, key path and nearest known key.
    """
    try:
        return model.model_validate(file.data)
    except ValidationError as error:
        problem = first_problem(error, model)
        raise file.error(problem.path, problem.message) from error


def read_gate(file: SuiteFile) -> Gate:
    """Return the limits of a suite; its other content may be that of another version.

    Raises:
        SuiteError: a limit is not valid.
    """
    try:
        return Gate.model_validate(file.data.get("gate", {}))
    except ValidationError as error:
        problem = first_problem(error, Gate)
        raise file.error(("gate", *problem.path), problem.message) from error


def _with_absolute_files(suite: Suite, folder: Path) -> Suite:
    """Return the suite with absolute paths of classes in files, of weights (of backbones, too) and of episodes.

    The suite is stored in the output directory and must run from there, too.
    """

    def absolute(entry: _Entry) -> _Entry:
        if entry.use is None or not file_classes.is_local(entry.use):
            return entry
        return entry.model_copy(update={"use": file_classes.absolute(entry.use, folder)})

    def of_backbone(params: Mapping[str, Any]) -> dict[str, Any]:
        weights = params.get("weights")
        path = str((folder / Path(weights).expanduser()).absolute()) if is_weights_file(weights) else weights
        return {**params, "weights": path} if "weights" in params else dict(params)

    def with_absolute_weights(entry: AlgorithmEntry) -> AlgorithmEntry:
        files = {kind: getattr(entry, kind) for kind in SOURCES}
        files = {kind: source for kind, source in files.items() if source and source not in suite.algorithms}
        paths = {kind: str((folder / source).absolute()) for kind, source in files.items()}
        return entry.model_copy(update={**paths, "backbone": of_backbone(entry.backbone)})

    changes: dict[str, Any] = {}
    for name in ("datasets", "backbones", "algorithms"):
        changes[name] = {label: absolute(entry) for label, entry in getattr(suite, name).items()}
    changes["algorithms"] = {label: with_absolute_weights(entry) for label, entry in changes["algorithms"].items()}
    changes["backbones"] = {
        label: entry.model_copy(update={"params": of_backbone(entry.params)})
        for label, entry in changes["backbones"].items()
    }
    if suite.eval.episodes_file is not None:
        file = str((folder / suite.eval.episodes_file).absolute())
        changes["eval"] = suite.eval.model_copy(update={"episodes_file": file})
    return suite.model_copy(update=changes)


def _check_labels(
    file: SuiteFile, base: Mapping[str, Any], changes: Mapping[str, Any], profile: str, labelled: Sequence[str]
) -> None:
    """Refuse a profile's labels that the suite lacks.

    Raises:
        SuiteError: a label is unknown, hence misspelt, or a section is not a mapping.
    """
    for section in labelled:
        known = base.get(section)
        changed = changes.get(section) or {}
        if not isinstance(changed, dict):
            raise file.error(("profiles", profile, section), "a mapping of labels to changed settings is needed")
        for label in changed:
            if isinstance(known, dict) and label not in known:
                raise file.error(
                    ("profiles", profile, section, label),
                    f"the suite has no '{shown(label)}' in {section}{nearest(str(label), map(str, known))}",
                )


def _merge(base: Any, changes: Any) -> Any:
    """Merge mappings key by key; replace any other value."""
    if isinstance(base, dict) and isinstance(changes, dict):
        return {**base, **{key: _merge(base.get(key), value) for key, value in changes.items()}}
    return changes
