"""Which classes an episode has; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

#: Rules by which an episode of one shape draws its classes; without one, from all classes of the split.
ClassSampling = Literal["one-of-a-group", "one-family"]


class ClassChoice(Protocol):
    """Draws the classes of episodes from random words."""

    @property
    def most(self) -> int:
        """Return the largest way that can be drawn."""

    @property
    def further_words(self) -> int:
        """Return the number of words that an episode needs beside one for each of its classes."""

    def __call__(self, words: Words, further: Words) -> IntArray:
        """Return the [B, N] classes of episodes.

        Args:
            words: [B, N] random words.
            further: [B, further_words] random words.
        """


class AnyClasses:
    """Draws distinct classes; all subsets are equally likely."""

    further_words = 0

    def __init__(self, classes: int) -> None:
        self.most = classes

    def __call__(self, words: Words, further: Words) -> IntArray:
        """Return the classes."""
        return distinct(words, np.full(len(words), self.most))


class OneOfAGroup:
    """Draws distinct groups, and a class of each: a character in one of its rotations.

    With the rotations of each character as a group, an episode has distinct characters, each rotated at random, as in
    the episodes of Finn et al. 2017.

    Args:
        groups: [classes] number of the group of each class.
        way: classes of an episode.
    """

    def __init__(self, groups: Sequence[int], way: int) -> None:
        self._members = _members(groups)
        self._sizes = np.array([len(members) for members in self._members], np.int64)
        self._table = _table(self._members)
        self.most, self.further_words = len(self._members), way

    def __call__(self, words: Words, further: Words) -> IntArray:
        """Return the classes."""
        groups = distinct(words, np.full(len(words), self.most))
        members = (further % self._sizes[groups].astype(np.uint64)).astype(np.int64)
        return self._table[groups, members]


class OneFamily:
    """Draws a family of enough classes, each as likely, and distinct classes of it.

    With alphabets as families, the episodes are within one alphabet, as the trials of Lake et al. 2015.

    Args:
        families: [classes] number of the family of each class.
        way: classes of an episode.
    """

    further_words = 1

    def __init__(self, families: Sequence[int], way: int) -> None:
        members = _members(families)
        self.most = max(map(len, members), default=0)
        large = [family for family in members if len(family) >= way]
        self._sizes = np.array([len(family) for family in large], np.int64)
        self._table = _table(large)

    def __call__(self, words: Words, further: Words) -> IntArray:
        """Return the classes."""
        family = (further[:, 0] % np.uint64(len(self._sizes))).astype(np.int64)
        return self._table[family[:, None], distinct(words, self._sizes[family])]


def class_choice(
    rule: str | None, way: int, classes: int, groups: Sequence[int] | None, families: Sequence[int] | None
) -> ClassChoice:
    """Return the choice of a rule.

    Args:
        rule: a `ClassSampling`, or another word or None, which draws from all classes.
        way: classes of an episode.
        classes: number of classes.
        groups: [classes] group of each class; None makes each a group of its own.
        families: [classes] family of each class; None makes all one family.
    """
    if rule == "one-of-a-group":
        return OneOfAGroup(range(classes) if groups is None else groups, way)
    if rule == "one-family":
        return OneFamily([0] * classes if families is None else families, way)
    return AnyClasses(classes)


def distinct(words: Words, limits: IntArray) -> IntArray:
    """Map random words to distinct integers below each row's limit.

    All subsets are equally likely. The k-th number is drawn from ``limit - k`` values and moved past the earlier ones,
    smallest first. The modulo's bias is below limit / 2^64.

    Args:
        words: [R, n] random words.
        limits: [R] exclusive upper bounds.

    Returns:
        [R, n] integers; the first of each row, as many as its limit, are distinct and below it.
    """
    rows, n = words.shape
    chosen = np.empty((rows, n), dtype=np.int64)
    for k in range(n):
        value = (words[:, k] % np.maximum(limits - k, 1).astype(np.uint64)).astype(np.int64)
        taken = np.sort(chosen[:, :k], axis=1)
        for j in range(k):
            value += value >= taken[:, j]
        chosen[:, k] = value
    return chosen


def _members(numbers: Sequence[int]) -> list[IntArray]:
    """Return the classes of each number, in the order of the numbers."""
    array = np.asarray(numbers, np.int64)
    return [np.flatnonzero(array == number) for number in np.unique(array)]


def _table(members: Sequence[IntArray]) -> IntArray:
    """Return [sets, largest] classes of each set, and 0 after its last one."""
    table = np.zeros((len(members), max(map(len, members), default=0)), np.int64)
    for row, classes in zip(table, members, strict=True):
        row[: len(classes)] = classes
    return table
