"""Tables of labels with named columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from metabench.api import DataError


def read_table(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Yield the lines of a CSV with a header, as values by column, without blanks around them.

    Args:
        path: the file.
        columns: the columns that are yielded.

    Raises:
        DataError: a column is missing, or a line has no value in one of them.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    header = [name.strip() for name in next(lines, [])]
    absent = [column for column in columns if column not in header]
    if absent:
        raise DataError(f"{path} has no column {absent[0]}, but {', '.join(header) or 'none'}: get the original file")
    for line in lines:
        if not any(line):
            continue
        values = dict(zip(header, map(str.strip, line), strict=False))
        empty = [column for column in columns if not values.get(column)]
        if empty:
            raise DataError(f"{path}, line {lines.line_num}: it has no {empty[0]}: get the original file")
        yield values
