"""The limits of what a training sees: a number, or a list, which makes a cell of each number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from metabench.data.subsets import Subset

if TYPE_CHECKING:  # `suite` imports this module
    from metabench.planning.suite import Suite
    from metabench.planning.suite_text import KeyPath

#: The training settings that limit what a training sees: the attributes of `Subset`.
LIMITS = ("classes", "images_per_class")


def _numbers(value: Any) -> Any:
    """Check a number, or a list of different ones."""
    values = value if isinstance(value, list) else [value]
    if not values or any(type(number) is not int or number < 1 for number in values):
        raise ValueError("a number of at least 1 is needed, or a list of them")
    if len(set(values)) < len(values):
        raise ValueError("a number is given twice")
    return value


#: A limit of a suite.
Numbers = Annotated[int | list[int], BeforeValidator(_numbers)]


@dataclass(frozen=True)
class Limit:
    """The limits of a cell's training.

    Attributes:
        subset: the limits; None where there are none.
        names: parts of the labels of its cells, e.g. ``("train.classes=20",)``: the limits that are lists.
    """

    subset: Subset | None = None
    names: Sequence[str] = ()

    def label(self, label: str) -> str:
        """Return the label of an algorithm with these limits, e.g. ``"maml[train.classes=20]"``."""
        if not self.names:
            return label
        before = f"{label[:-1]}," if label.endswith("]") else f"{label}["  # a grid's label has its brackets already
        return f"{before}{','.join(self.names)}]"


def limits_of(suite: Suite, label: str) -> list[Limit]:
    """Return the limits of the trainings whose weights an algorithm is tested on: the products of their lists."""
    settings = [_setting(suite, label, name)[0] for name in LIMITS]
    lists = [value if isinstance(value, list) else [value] for value in settings]
    limits = []
    for values in product(*lists):
        subset = Subset(*values)
        named = zip(LIMITS, values, settings, strict=True)
        names = tuple(f"train.{name}={value}" for name, value, setting in named if isinstance(setting, list))
        limits.append(Limit(subset if subset.identity else None, names))
    return limits


def place_of(suite: Suite, label: str, subset: Subset, name: str) -> KeyPath:
    """Return the keys of a limit of an algorithm's training."""
    setting, place = _setting(suite, label, name)
    return (*place, setting.index(getattr(subset, name))) if isinstance(setting, list) else place


def _setting(suite: Suite, label: str, name: str) -> tuple[int | list[int] | None, KeyPath]:
    """Return the setting of the algorithm that makes the weights, or the suite's, and its keys."""
    source = suite.algorithms[label].weights
    trained_by = source if source in suite.algorithms else label
    value = getattr(suite.algorithms[trained_by].train, name, None)
    if value is not None:
        return value, ("algorithms", trained_by, "train", name)
    return getattr(suite.train, name, None), ("train", name)
