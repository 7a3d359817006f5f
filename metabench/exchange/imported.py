"""Turn results of other code into records, beside those of a run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from metabench import __version__
from metabench.analysis.estimates import estimates
from metabench.analysis.metrics import CLASSIFICATION, RANKED_BY, class_accuracies
from metabench.analysis.stats import Floats
from metabench.api import Split
from metabench.data.validation import normalised
from metabench.errors import UsageError
from metabench.exchange.episode_sets import EpisodeSet
from metabench.exchange.result_files import MethodResults, read_results
from metabench.files import sha256_of
from metabench.planning.cells import content_hash
from metabench.records.machines import Machine
from metabench.records.record import Data, EpisodeResults, Record

#: In the place of a machine: what a result of other code has cost is not known.
_UNKNOWN = Machine(kind="unknown", name="that of other code")


def import_results(
    path: Path, episodes: EpisodeSet, method: str | None, backbone: str
) -> list[tuple[Record, EpisodeResults]]:
    """Return the records of the methods in a file, with their per-episode results.

    Args:
        path: the file, see `metabench.exchange.result_files.read_results`.
        episodes: the episodes that the results are of.
        method: name of the method, of a file without such a column.
        backbone: label of the backbone whose table the methods stand in.

    Raises:
        DataError: the file is wrong.
        UsageError: the episodes are no test of classification, or the method has no name.
    """
    if episodes.test.task != "classification" or episodes.split != "test":
        raise UsageError("only results of the classification of test episodes are imported")
    asked = _Asked(episodes)
    return [_record(found, path, asked, backbone) for found in read_results(path, asked, method)]


class _Asked:
    """The `metabench.exchange.result_files.Questions` of a set of episodes, and their answers."""

    def __init__(self, episodes: EpisodeSet) -> None:
        self.episodes, self.count = episodes, len(episodes)
        split = episodes.data.splits[episodes.split]
        assert isinstance(split, Split), "a classification has classes of images"
        self._names, self._class_names = split.image_names, split.class_names
        self._known: dict[int, list[str]] = {}

    def queries(self, episode: int) -> int:
        """Return the number of queries of an episode."""
        return int(self.targets(episode).shape[1])

    def classes(self, episode: int) -> Sequence[str]:
        """Return the names of its classes, in the order of the labels."""
        return self.episodes.classes(episode)

    def query_names(self, episode: int) -> Sequence[str] | None:
        """Return ``CLASS/IMAGE`` of each query; None where images have no names."""
        if self._names is None:
            return None
        if episode not in self._known:
            drawn, classes = self.episodes.indices(episode), self.classes(episode)
            pairs = zip(drawn.query_labels[0], drawn.query[0], strict=True)
            self._known = {episode: [normalised(f"{classes[label]}/{self._names[i]}") for label, i in pairs]}
        return self._known[episode]

    def targets(self, episode: int) -> npt.NDArray[np.int64]:
        """Return the [1, M] labels of the queries."""
        return self.episodes.indices(episode).query_labels

    def by_class(self, episode: int, predictions: npt.NDArray[np.int64]) -> Floats:
        """Return the [N] accuracies of the classes of an episode, as a test computes them."""
        outputs = np.eye(len(self.classes(episode)))[predictions][None]
        accuracies: Floats = class_accuracies(outputs, self.targets(episode))[0]
        return accuracies


def _record(found: MethodResults, path: Path, asked: _Asked, backbone: str) -> tuple[Record, EpisodeResults]:
    """Return the record of a method, and its per-episode results."""
    episodes, test = asked.episodes, asked.episodes.test
    by_class = None
    if found.accuracies is None:
        rows = [asked.by_class(number, predictions) for number, predictions in enumerate(found.predictions)]
        values = np.array([row.mean() for row in rows])
        by_class = None if test.shape.varies or test.shape.dirichlet is not None else np.stack(rows)
    else:
        values = found.accuracies
    groups = episodes.stream.groups(0, len(values))
    identity = _identity(found, test.dataset.identity, backbone, test.shape.identity, test.seed)
    data = episodes.data
    record = Record(
        cell=content_hash(identity),
        suite="imported",
        profile="",
        algorithm=found.method,
        dataset=test.dataset.label,
        backbone=backbone,
        way=test.shape.way,
        shot=test.shape.shot,
        queries=test.shape.queries,
        episodes_file=test.file.path.name if test.file else "",
        seed=found.seed,
        identity=identity,
        status="ok",
        external=path.name,
        chance=float(episodes.stream.chances(0, len(values)).mean()),
        ranked_by=RANKED_BY,
        metrics=estimates({RANKED_BY: values}, groups, CLASSIFICATION[:1]),
        declarations={RANKED_BY: CLASSIFICATION[0].declaration},
        remarks=[f"results of other code, imported from {path.name}: how they were made was not checked"],
        device=str(_UNKNOWN),
        machine=_UNKNOWN,
        dataset_fingerprint=data.fingerprint,
        data=Data(
            episodes=episodes.key,
            raw_files=data.raw_files,
            overlapping=data.findings.overlapping,
            duplicates=dict(data.findings.duplicates),
        ),
        environment={"metabench": __version__, "file_sha256": sha256_of(path)},
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    return record, EpisodeResults({RANKED_BY: values}, groups, by_class=by_class)


def _identity(
    found: MethodResults, dataset: dict[str, Any], backbone: str, shape: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Return what tells the cell from others."""
    # The results themselves are no part of it, so that corrected ones replace them.
    return {
        "engine": "external",
        "algorithm": {"label": found.method, "name": "external", "params": {}},
        "dataset": dataset,
        "backbone": {"label": backbone, "name": "external", "params": {}},
        "shape": shape,
        "seed": found.seed,
        "train": None,
        "test": {"seed": seed},
    }
