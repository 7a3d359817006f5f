"""Read results of other code: predictions, or accuracies, of episodes as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from metabench.analysis.stats import Floats, Ints
from metabench.data.validation import normalised
from metabench.errors import DataError, UsageError, nearest, shown
from metabench.files import read_regular
from metabench.text import counted, visible

#: Longest name of a method; tables show it.
_LONGEST = 160
_OPTIONAL = ("method", "seed")
_FORMS = (("episode", "accuracy"), ("episode", "query", "prediction"))


class Questions(Protocol):
    """What is asked in the episodes, by number."""

    @property
    def count(self) -> int:
        """Return the number of episodes."""

    def queries(self, episode: int) -> int:
        """Return the number of queries of an episode."""

    def classes(self, episode: int) -> Sequence[str]:
        """Return the names of its classes, in the order of the labels."""

    def query_names(self, episode: int) -> Sequence[str] | None:
        """Return ``CLASS/IMAGE`` of each query; None where images have no names."""


@dataclass(frozen=True)
class MethodResults:
    """The results of one method and training seed.

    Attributes:
        method: name of the method.
        seed: the training seed.
        accuracies: [n] accuracies of the first episodes; None where predictions are given.
        predictions: for each of the first episodes, [M] predicted labels.
    """

    method: str
    seed: int
    accuracies: Floats | None = None
    predictions: Sequence[Ints] = ()


def read_results(path: Path, questions: Questions, method: str | None = None) -> list[MethodResults]:
    """Read the results of one or several methods.

    The file is CSV with a header. Its columns are ``episode`` and ``accuracy`` (a share of 1), or ``episode``,
    ``query`` and ``prediction``; ``method`` and ``seed`` are optional. Episodes are counted from 0, without gaps.
    Queries and predicted labels are numbers, as in the tensors of the episodes; or names: ``CLASS/IMAGE`` of the
    query, and the predicted class.

    Args:
        path: the file.
        questions: the episodes.
        method: name of the method, of a file without such a column.

    Raises:
        DataError: the file cannot be read, or a line is wrong; the message names line and column.
        UsageError: the method has no name, or two.
    """
    rows = _rows(path)
    line, header = next(rows, (1, []))
    columns = _columns(path, line, header)
    if ("method" in columns) == (method is not None):
        raise UsageError(
            f"{path} has a column 'method': leave out --method"
            if method is not None
            else f"{path} has no column 'method': name it by --method"
        )
    by_method: dict[tuple[str, int], _Collected] = {}
    for line, values in rows:
        if len(values) != len(header):
            raise DataError(f"{path}:{line}: {counted(len(values), 'value')}, and the header has {len(header)} columns")
        entry = _Entry(f"{path}:{line}", {name: values[place].strip() for name, place in columns.items()})
        name = method or entry.text("method")
        if not 0 < len(name) <= _LONGEST or visible(name) != name:
            raise DataError(f"{entry.place}: column 'method': {shown(name)!r} is no name of 1 to {_LONGEST} characters")
        seed = entry.whole("seed", None, "a training seed") if "seed" in columns else 0
        by_method.setdefault((name, seed), _Collected()).add(entry, line, questions)
    if not by_method:
        raise DataError(f"{path} has no results: its header is followed by no line")
    owners = {key: f"{path}: {shown(key[0])}, seed {key[1]}" for key in by_method}
    return [found.results(*key, owners[key], questions) for key, found in by_method.items()]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and values of each line that is not empty.

    Raises:
        DataError: the file cannot be read, or is no CSV.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for values in reader:
            if values:
                yield reader.line_num, values
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


def _columns(path: Path, line: int, header: Sequence[str]) -> dict[str, int]:
    """Return the place of each column.

    Raises:
        DataError: the header is not as `read_results` says.
    """
    if not header:
        raise DataError(f"{path} is empty: its first line names the columns, {' or '.join(map(','.join, _FORMS))}")
    names = [name.strip() for name in header]
    known = [*dict.fromkeys(name for form in _FORMS for name in form), *_OPTIONAL]
    for name in names:
        if name not in known:
            raise DataError(
                f"{path}:{line}: unknown column '{shown(name)}'{nearest(name, known)}: the columns are "
                f"{' or '.join(map(','.join, _FORMS))}, and perhaps method and seed"
            )
        if names.count(name) > 1:
            raise DataError(f"{path}:{line}: the column '{name}' is given twice: remove one")
    if "accuracy" in names and {"query", "prediction"} & set(names):
        raise DataError(f"{path}:{line}: a file has accuracies of episodes, or predictions of queries, not both")
    needed = _FORMS[0] if "accuracy" in names else _FORMS[1]
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(f"{path}:{line}: the column '{missing[0]}' is missing: the columns are {','.join(needed)}")
    return {name: place for place, name in enumerate(names)}


@dataclass(frozen=True)
class _Entry:
    """The values of a line.

    Attributes:
        place: file and line, for messages.
        values: the values by column.
    """

    place: str
    values: Mapping[str, str]

    def text(self, column: str) -> str:
        """Return the text of a column."""
        return self.values[column]

    def error(self, column: str, message: str) -> DataError:
        """Return an error with file, line and column."""
        return DataError(f"{self.place}: column '{column}': {message}")

    def whole(self, column: str, limit: int | None, meaning: str) -> int:
        """Return a whole number from 0 to below a limit.

        Raises:
            DataError: it is none.
        """
        text = self.values[column]
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else -1
        if number < 0 or (limit is not None and number >= limit):
            among = "" if limit is None else f" from 0 to {limit - 1}"
            raise self.error(column, f"'{shown(text)}' is not {meaning}, a whole number{among}")
        return number

    def share(self, column: str) -> float:
        """Return a number from 0 to 1.

        Raises:
            DataError: it is none.
        """
        text = self.values[column]
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number <= 1:
            advice = ": divide percentages by 100" if 1 < number <= 100 else ""
            raise self.error(column, f"'{shown(text)}' is no accuracy between 0 and 1{advice}")
        return number


@dataclass
class _Collected:
    """The lines of one method and seed.

    Attributes:
        accuracies: accuracy and line of each episode.
        predictions: predicted label and line of each query of each episode.
    """

    accuracies: dict[int, tuple[float, int]] = field(default_factory=dict)
    predictions: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)

    def add(self, entry: _Entry, line: int, questions: Questions) -> None:
        """Add a line.

        Raises:
            DataError: it is wrong, or repeats another.
        """
        episode = entry.whole("episode", questions.count, "an episode")
        if "accuracy" in entry.values:
            if episode in self.accuracies:
                raise entry.error("episode", f"episode {episode} is also in line {self.accuracies[episode][1]}")
            self.accuracies[episode] = entry.share("accuracy"), line
            return
        query, label = _answer(entry, episode, questions)
        of_episode = self.predictions.setdefault(episode, {})
        if query in of_episode:
            raise entry.error("query", f"query {query} of episode {episode} is also in line {of_episode[query][1]}")
        of_episode[query] = label, line

    def results(self, method: str, seed: int, owner: str, questions: Questions) -> MethodResults:
        """Return the results of all lines.

        Raises:
            DataError: an episode or a query is missing.
        """
        episodes = sorted(self.accuracies or self.predictions)
        missing = next((number for number, episode in enumerate(episodes) if number != episode), None)
        if missing is not None:
            raise DataError(
                f"{owner}: episode {missing} is missing, and {episodes[-1]} is there: give the first episodes, without "
                "gaps"
            )
        if len(episodes) < 2:
            raise DataError(f"{owner}: one episode is too few: intervals need two or more")
        if self.accuracies:
            return MethodResults(method, seed, np.array([self.accuracies[number][0] for number in episodes]))
        predictions = []
        for number in episodes:
            answers, asked = self.predictions[number], questions.queries(number)
            lacking = next((query for query in range(asked) if query not in answers), None)
            if lacking is not None:
                raise DataError(
                    f"{owner}: episode {number} has predictions of {len(answers)} of its {asked} queries: query "
                    f"{_name(number, lacking, questions)} is missing"
                )
            predictions.append(np.array([answers[query][0] for query in range(asked)], dtype=np.int64))
        return MethodResults(method, seed, predictions=predictions)


def _answer(entry: _Entry, episode: int, questions: Questions) -> tuple[int, int]:
    """Return query and predicted label of a line: two numbers, or two names.

    Raises:
        DataError: the episode has no such query or class.
    """
    classes, text = questions.classes(episode), entry.text("query")
    if text.isascii() and text.isdecimal():
        query = entry.whole("query", questions.queries(episode), f"a query of episode {episode}")
        return query, entry.whole("prediction", len(classes), f"a class of episode {episode}")
    names = questions.query_names(episode)
    if names is None:
        raise entry.error("query", f"'{shown(text)}' is no number, and the dataset names no images")
    name = normalised(text)
    if name not in names:
        raise entry.error("query", f"episode {episode} has no query '{shown(text)}'{nearest(name, names)}")
    predicted = normalised(entry.text("prediction"))
    known = [normalised(name) for name in classes]
    if predicted not in known:
        raise entry.error(
            "prediction", f"episode {episode} has no class '{shown(predicted)}'{nearest(predicted, known)}"
        )
    return list(names).index(name), known.index(predicted)


def _name(episode: int, query: int, questions: Questions) -> str:
    names = questions.query_names(episode)
    return str(query) if names is None else f"{query} ('{shown(names[query])}')"
