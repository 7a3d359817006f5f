"""The description of a file or folder of images as text."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import yaml

from metabench.text import encodable

if TYPE_CHECKING:  # imports torch
    from metabench.api import Inspection

#: Columns of the titles.
_INDENT = 12
#: Most columns of the longest bar of a histogram.
_BAR = 40
#: Most entries of a list that are shown.
_SHOWN = 10
#: Factor between the largest and smallest class beyond which the bins of the histogram double.
_WIDE = 4
#: Number of bins of equal width.
_BINS = 5


def inspection_text(name: str, found: Inspection, width: int, encoding: str) -> str:
    """Return the description of a file or folder, in lines that fit the terminal where its words do.

    Args:
        name: the dataset that reads it.
        found: its description.
        width: columns of the terminal.
        encoding: encoding of the terminal; other characters are replaced.
    """
    counts = found.classes.values()
    params = yaml.safe_dump(
        dict(found.params), default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    )
    lines = [
        *_titled("read by", f"{name}: {found.form}", width),
        *_titled("params", params, width),
        *_titled("classes", f"{len(counts)}{_spread(list(counts), found.noun)}", width),
        *_titled(f"{found.noun}s", f"{sum(counts)}", width),
        *(_titled("sizes", _sizes(found.sizes), width) if found.sizes else []),
        *(_titled("modes", _frequencies(found.modes), width) if found.modes else []),
    ]
    for split, classes in found.splits.items():
        of_split = list(classes.values())
        lines += _titled(split, f"{_count(len(of_split), 'class')}{_spread(of_split, found.noun)}", width)
    lines += ["", f"{found.noun}s of a class", *_histogram(list(counts), width)] if len(set(counts)) > 1 else []
    duplicates = [" = ".join(group) for group in found.duplicates]
    for title, entries in (
        ("equal images", duplicates),
        ("damaged files", found.damaged),
        ("remarks", found.remarks),
        ("in the way of a run", found.problems),
    ):
        lines += _list(title, entries, width)
    if found.suites:
        lines += ["", f"fitting suites: {', '.join(found.suites)}"]
    return encodable("\n".join(lines), encoding)


def _titled(title: str, text: str, width: int) -> list[str]:
    return _wrapped(f"{title:<{_INDENT}}", text, width)


def _wrapped(start: str, text: str, width: int) -> list[str]:
    """Return the lines of a text; those after the first begin below its first word."""
    return textwrap.wrap(
        text,
        max(width, 2 * _INDENT),
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _list(title: str, entries: Sequence[str], width: int) -> list[str]:
    if not entries:
        return []
    shown = [line for entry in entries[:_SHOWN] for line in _wrapped("  - ", entry, width)]
    more = [f"  … and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
    return ["", f"{title}: {len(entries)}", *shown, *more]


def _spread(counts: Sequence[int], noun: str) -> str:
    """Return the range and median of counts."""
    if not counts:
        return ""
    least, most = min(counts), max(counts)
    if least == most:
        return f", {_count(least, noun)} each"
    return f", {least} … {most} {noun}s each, median {statistics.median(counts):g}"


def _sizes(sizes: Mapping[tuple[int, int], int]) -> str:
    """Return the smallest and largest size by area, and the commonest one."""
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    smallest, largest = (f"{width}×{height}" for width, height in (by_area[0], by_area[-1]))
    if len(sizes) == 1:
        return f"{smallest} pixels"
    (common, images) = Counter(sizes).most_common(1)[0]
    return f"{smallest} … {largest} pixels, most often {common[0]}×{common[1]} ({images})"


def _frequencies(modes: Mapping[str, int]) -> str:
    return ", ".join(f"{mode} {images}" for mode, images in Counter(modes).most_common())


def _histogram(counts: Sequence[int], width: int) -> Iterator[str]:
    """Yield a bar for the number of classes in each range of numbers of images."""
    bins = _bins(min(counts), max(counts))
    numbers = [sum(first <= count < end for count in counts) for first, end in bins]
    labels = [f"{first}" if end == first + 1 else f"{first}-{end - 1}" for first, end in bins]
    title, number = max(map(len, labels)), len(str(max(numbers)))
    room = max(1, min(_BAR, width - title - number - 5))
    for label, count in zip(labels, numbers, strict=True):
        bar = "█" * -(-count * room // max(numbers))
        yield f"  {label:>{title}} {count:>{number}} {bar}".rstrip()


def _bins(least: int, most: int) -> list[tuple[int, int]]:
    """Return ranges of numbers, the ends left out: of equal width, or doubling where classes differ much."""
    edges = [least]
    step = -(-(most + 1 - least) // _BINS)
    while edges[-1] <= most:
        edges.append(max(edges[-1] + 1, 2 * edges[-1]) if most >= _WIDE * least else edges[-1] + step)
    return list(pairwise(edges))


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
