"""Check a dataset against the contract of `metabench.api.Dataset`.

`metabench.testing.DatasetChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from metabench.api import Dataset, Pack, Rows, Split
from metabench.conformance import checks
from metabench.conformance.checks import NotConforming
from metabench.data.identical import examine
from metabench.data.packing import DataRoots, load_pack, make_pack, pack_path
from metabench.data.sampler import EpisodeShape
from metabench.data.validation import SPLITS, check_sizes, check_splits
from metabench.engine.streams import EpisodeStream
from metabench.errors import DataError
from metabench.registry.configs import InvalidConfig, complete_params, validate_config
from metabench.registry.manager import PluginManager

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Subject:
    """The dataset to check.

    Attributes:
        name: name of the dataset, as its plugin announces it, or ``FILE.py:CLASS``.
        roots: folders of raw data, and a temporary cache.
        params: its parameters.
        plugins: the plugin manager that provides the class.
    """

    name: str
    roots: DataRoots
    params: Mapping[str, Any] = field(default_factory=dict)
    plugins: PluginManager = field(default_factory=PluginManager.from_environment)

    def build(self, params: Mapping[str, Any] | None = None) -> Dataset:
        """Return a new dataset; by default, with the parameters of the subject."""
        cls = self.plugins.dataset_class(self.name)
        if not issubclass(cls, Dataset) or cls.makes_episodes:
            raise NotConforming("it makes episodes, check it by metabench.testing.EpisodeSourceChecks")
        return cls(validate_config(cls.Config, self.params if params is None else params))

    def pack(self) -> Pack:
        """Return the pack; only the first call makes it, the others load it from the cache."""
        return load_pack(self.name, self.build(), self.roots, _unseen)

    def splits(self) -> Mapping[str, Split]:
        """Return the splits, checked apart from each other."""
        return check_splits(self.name, self.build().split(self.pack()), None)

    def packed_again(self, params: Mapping[str, Any]) -> str:
        """Pack once more; return the fingerprint, and keep the pack only if it is that of `pack`."""
        dataset, expected = self.build(params), self.pack().fingerprint
        fingerprint = make_pack(self.name, dataset, self.roots, _unseen).fingerprint
        if fingerprint != expected:
            pack_path(self.name, dataset, self.roots).unlink()
        return fingerprint


def _unseen(done: int, total: int, what: str) -> None:
    """Show no progress."""


# ----------------------------------------------------------------------------------------------- the checks


def check_parameters(subject: Subject) -> None:
    """Unknown parameters are refused by its Config."""
    checks.refuse_unknown_parameters(subject.plugins.dataset_class(subject.name).Config)


def check_pack(subject: Subject) -> None:
    """It packs images, offsets and names that fit each other."""
    packed = subject.pack().fingerprint
    if subject.pack().fingerprint != packed:
        raise NotConforming("the pack that was loaded from the cache is another one: return numpy arrays and texts")


def check_pack_repeats(subject: Subject) -> None:
    """Packing twice gives the same pack."""
    if subject.packed_again(subject.params) != subject.pack().fingerprint:
        raise NotConforming(
            "two packs of the same raw data and parameters differ: draw random numbers from a generator with a fixed "
            "seed, and sort what a directory or a set lists"
        )


def check_split(subject: Subject) -> None:
    """It has the splits train, val and test, whose fields fit each other."""
    subject.splits()


def check_announced_sizes(subject: Subject) -> None:
    """Splits have the sizes that `sizes` announces."""
    dataset = subject.build()
    check_splits(subject.name, dataset.split(subject.pack()), check_sizes(subject.name, dataset.sizes()))


def check_disjoint(subject: Subject) -> None:
    """Unless it is `overlapping`, splits share neither classes nor images."""
    examine(subject.name, subject.splits(), subject.build().overlapping)


def check_split_repeats(subject: Subject) -> None:
    """Splitting twice gives the same splits, and leaves the pack as it is."""
    pack = subject.pack()
    before = pack.fingerprint
    one: Mapping[str, Any] = subject.build().split(pack)
    # `fingerprint` is computed once for each object.
    if Pack(pack.images, pack.offsets, pack.class_names, pack.image_names).fingerprint != before:
        raise NotConforming("split() changes the pack that it is given: work on a copy of the images")
    other: Mapping[str, Any] = subject.build().split(pack)
    for split, content in one.items():
        part = _difference(content, other[split]) if split in other else "existence"
        if part:
            raise NotConforming(
                f"two calls of split() differ in the {part} of '{split}': draw random numbers from a generator with a "
                "fixed seed, and keep nothing on self"
            )


def _difference(one: Split, other: Split) -> str:
    """Return the name of the first field in which two splits differ; empty for equal splits."""
    if not _same_rows(one.rows, other.rows):
        return "images"
    if not torch.equal(one.offsets, other.offsets):
        return "offsets"
    for name in ("class_names", "mean", "std", "groups", "image_names", "families", "nodes"):
        values = [None if value is None else list(value) for value in (getattr(one, name), getattr(other, name))]
        if values[0] != values[1]:
            return name
    return ""


def _same_rows(one: Rows, other: Rows) -> bool:
    """Return whether two splits have the same images, read some at a time."""
    alike = (len(one), one.shape, one.dtype) == (len(other), other.shape, other.dtype)
    return alike and all(torch.equal(part, same) for part, same in zip(one.parts(), other.parts(), strict=True))


def check_split_parameters(subject: Subject) -> None:
    """The pack does not depend on `split_parameters`."""
    dataset = subject.build()
    fields = type(dataset).Config.model_fields
    unknown = [name for name in dataset.split_parameters if name not in fields]
    if unknown:
        raise NotConforming(
            f"split_parameters names '{unknown[0]}', which is no parameter: its parameters are "
            f"{', '.join(fields) or 'none'}"
        )
    params: dict[str, Any] = dict(subject.params)
    for name in dataset.split_parameters:
        params = _changed(dataset, params, name)
    if params == dict(subject.params):
        return
    pack = subject.pack()
    changes = ", ".join(f"{name}: {params[name]!r}" for name in dataset.split_parameters if name in params)
    try:
        same = subject.packed_again(params) == pack.fingerprint
    except DataError as error:
        raise NotConforming(f"{error} (with other split_parameters, {changes})") from error
    if not same:
        raise NotConforming(
            f"the pack changes with its split_parameters ({changes}), but configurations that differ in them share one "
            "pack: read these parameters in split() only"
        )


def _changed(dataset: Dataset, params: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the parameters with another value of one; as they are if no other value is found."""
    config = type(dataset).Config
    current = complete_params(config, params)[name]
    try:
        schema = config.model_json_schema()
    except Exception:  # pydantic's, or that of a plugin's type
        schema = {}
    for value in _candidates(schema, current):
        try:
            if complete_params(config, {**params, name: value})[name] != current:
                return {**params, name: value}
        except InvalidConfig:
            continue
    return params


def _candidates(schema: object, current: object) -> Iterator[object]:
    """Yield possible values of a parameter: every choice of the schema, and neighbours of the current value."""
    if isinstance(schema, Mapping):
        yield from schema.get("enum", ())
        for part in schema.values():
            yield from _candidates(part, None)
    elif isinstance(schema, list):
        for part in schema:
            yield from _candidates(part, None)
    if isinstance(current, bool):
        yield not current
    elif isinstance(current, (int, float)):
        yield from (current + 1, current - 1, current / 2)
    elif isinstance(current, str):
        yield f"{current}-other"


def check_episodes(subject: Subject) -> None:
    """Episodes can be drawn from every split."""
    splits = subject.splits()
    for name in SPLITS:
        counts = splits[name].offsets.diff()
        drawn = counts[counts >= 2]  # smaller classes are left out of the draw
        if len(drawn) < 2:
            raise NotConforming(
                f"the split '{name}' has {len(counts)} classes, {len(drawn)} of them with two images or more: an "
                "episode needs two classes, each with a support image and a query"
            )
        shape = EpisodeShape(min(5, len(drawn)), shot=1, queries=min(5, int(drawn.min()) - 1))
        EpisodeStream(splits[name], shape, name, 0, _CPU).batch(0, 4)


CHECKS: dict[str, Callable[[Subject], None]] = {
    "parameters": check_parameters,
    "pack": check_pack,
    "pack repeats": check_pack_repeats,
    "splits": check_split,
    "sizes": check_announced_sizes,
    "disjoint": check_disjoint,
    "split repeats": check_split_repeats,
    "split parameters": check_split_parameters,
    "episodes": check_episodes,
}
