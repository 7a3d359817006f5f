"""Read episodes from a file that names their support and query images."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from metabench.data.sampler import EpisodeShape
from metabench.data.validation import normalised
from metabench.errors import DataError, shown

#: The file of each of the one-shot runs of Omniglot's authors.
_LABELS = "class_labels.txt"
#: What may stand between two episodes.
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class EpisodesFile:
    """A file of episodes.

    Attributes:
        path: the absolute path.
        sha256: hash of its content.
    """

    path: Path
    sha256: str


@dataclass(frozen=True)
class NamedEpisode:
    """An episode of names.

    Attributes:
        place: file and line, for messages.
        support: names of the support images of each class, whose order is that of the labels.
        query: names of the queries of each class; it has the classes of `support`.
    """

    place: str
    support: Mapping[str, Sequence[str]]
    query: Mapping[str, Sequence[str]]


def read_episodes_file(path: Path, sha256: str | None = None) -> tuple[EpisodesFile, list[NamedEpisode]]:
    """Read the episodes of a file, in its order.

    The file is JSON, a list of episodes or one episode after the other (JSON lines), each
    ``{"support": {CLASS: [NAME, …]}, "query": {CLASS: [NAME, …]}}``; or the folder or zip of the one-shot runs of Lake
    et al. 2015 (https://github.com/brendenlake/omniglot, ``all_runs``), of which each ``class_labels.txt`` is an
    episode: a line has the file of a query and that of the support image of its class, which is named by it.

    Args:
        path: the absolute path.
        sha256: the hash that the content must have; None accepts any.

    Raises:
        DataError: the file cannot be read, has another hash or no episodes, or an episode is not as above, or has a
            class or an image twice. The message names the line.
    """
    of_runs = path.is_dir() or path.suffix == ".zip"
    try:
        parts = _label_files(path) if of_runs else {str(path): path.read_bytes()}
        texts = {name: content.decode() for name, content in parts.items()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read the episodes of {path}: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8") from error
    digest = hashlib.sha256()
    for content in parts.values():
        digest.update(content)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise DataError(f"{path} has changed since the suite was planned: run the suite again")
    if of_runs:
        episodes = [_run(name, text) for name, text in texts.items()]
    else:
        episodes = [episode for name, text in texts.items() for episode in _listed(name, text)]
    if not episodes:
        raise DataError(f"{path} has no episodes{f': no {_LABELS} is in it' if of_runs else ''}")
    return EpisodesFile(path, digest.hexdigest()), episodes


def shape_of(episodes: Sequence[NamedEpisode]) -> EpisodeShape:
    """Return the way, shot and queries of all episodes; 0 of each where they differ."""
    sizes = [
        (len(images), kind, len(names))
        for episode in episodes
        for kind, images in (("support", episode.support), ("query", episode.query))
        for names in images.values()
    ]
    ways = {way for way, _, _ in sizes}
    shots = {count for _, kind, count in sizes if kind == "support"}
    queries = {count for _, kind, count in sizes if kind == "query"}
    if max(len(ways), len(shots), len(queries)) > 1:
        return EpisodeShape(0, 0, 0)
    return EpisodeShape(ways.pop(), shots.pop(), queries.pop())


# ------------------------------------------------------------------------------------------------ JSON


def _listed(path: str, text: str) -> Iterator[NamedEpisode]:
    """Yield the episodes of a JSON list, or of JSON lines.

    Raises:
        DataError: it is no JSON, or an episode is not as it must be.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_without_repetition)
    is_list = text.lstrip().startswith("[")
    position, line = (text.index("[") + 1, text.count("\n", 0, text.index("[")) + 1) if is_list else (0, 1)
    while True:
        match = _BETWEEN.match(text, position)
        assert match is not None, "the pattern matches nothing, too"
        line += match.group().count("\n")
        position = match.end()
        if is_list and text.startswith("]", position):
            rest = text[position + 1 :].strip()
            if rest:
                raise DataError(f"{path}:{line}: not valid JSON: more follows the list")
            return
        if position == len(text):
            if is_list:
                raise DataError(f"{path}:{line}: not valid JSON: the list does not end")
            return
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
        except ValueError as error:
            raise DataError(f"{path}:{line}: {error}") from error
        yield _episode(f"{path}:{line}", value)
        line += text.count("\n", position, end)
        position = end


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON.

    Raises:
        ValueError: a key, such as a class, is twice in it.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if normalised(name) in found:
            raise ValueError(f"'{shown(name)}' is given twice in one episode: remove one")
        found[normalised(name)] = value
    return found


def _episode(place: str, value: Any) -> NamedEpisode:
    """Return a checked episode.

    Raises:
        DataError: it is not as `read_episodes_file` says.
    """
    if not isinstance(value, dict) or set(value) != {"support", "query"}:
        raise DataError(f'{place}: an episode is {{"support": {{CLASS: [IMAGE, …]}}, "query": {{CLASS: [IMAGE, …]}}}}')
    sets = []
    for kind, classes in (("support", value["support"]), ("query", value["query"])):
        if not isinstance(classes, dict):
            raise DataError(f"{place}: its {kind} set must map each class to a list of image names")
        for name, images in classes.items():
            if not (isinstance(images, list) and images and all(isinstance(image, str) for image in images)):
                raise DataError(f"{place}: class '{shown(name)}' needs a list of at least one image name as its {kind}")
        sets.append({name: [normalised(image) for image in images] for name, images in classes.items()})
    return _checked(NamedEpisode(place, *sets))


def _checked(episode: NamedEpisode) -> NamedEpisode:
    """Return the episode, if it is one.

    Raises:
        DataError: it has fewer than two classes, support and query classes differ, or an image is twice in it.
    """
    support, query, place = episode.support, episode.query, episode.place
    if len(support) < 2:
        raise DataError(f"{place}: an episode needs at least two classes")
    for here, there, kind in ((query, support, "support images"), (support, query, "queries")):
        for name in here:
            if name not in there:
                raise DataError(f"{place}: class '{shown(name)}' has no {kind}")
    for name in support:
        seen: set[str] = set()
        for image in [*support[name], *query[name]]:
            if image in seen:
                both = "support and query" if image in support[name] and image in query[name] else "one set twice"
                raise DataError(
                    f"{place}: the image '{shown(image)}' of class '{shown(name)}' is in {both}: remove one"
                )
            seen.add(image)
    return episode


# ------------------------------------------------------------------------------- the runs of Omniglot's authors


def _label_files(path: Path) -> dict[str, bytes]:
    """Return the files of labels of a folder or zip, by name, in the order of the runs."""
    if path.is_dir():
        return {str(file): file.read_bytes() for file in sorted(path.rglob(_LABELS))}
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        names = sorted(name for name in archive.namelist() if PurePosixPath(name).name == _LABELS)
        return {f"{path}/{name}": archive.read(name) for name in names if not name.startswith("__MACOSX")}


def _run(file: str, text: str) -> NamedEpisode:
    """Return the episode of one run.

    Raises:
        DataError: a line has not two names, or the run is no episode.
    """
    support: dict[str, list[str]] = {}
    query: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        names = line.split()
        if not names:
            continue
        if len(names) != 2:
            raise DataError(f"{file}:{number}: a line has two names, of a query and of the support image of its class")
        name = str(PurePosixPath(names[1]).with_suffix(""))
        support[name] = [names[1]]
        query.setdefault(name, []).append(names[0])
    return _checked(NamedEpisode(file, support, query))
