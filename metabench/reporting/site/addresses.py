"""Names of runs, and addresses of pages, that depend on nothing but what they are for."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from metabench.errors import UsageError
from metabench.text import one_line

#: Most characters of an address, without folder and suffix.
_MOST = 80


def names_of(directories: Sequence[Path]) -> list[str]:
    """Return the names of folders: as many of their last parts as tell all of them apart.

    Raises:
        UsageError: a folder is given twice.
    """
    parts = [Path(os.path.abspath(directory)).parts for directory in directories]
    for count in range(1, max(map(len, parts)) + 1):
        names = [one_line("/".join(part[-count:])) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UsageError("a run is given twice: name each directory once")


def addresses(folder: str, names: Iterable[str]) -> dict[str, str]:
    """Return the address of a page for each name, e.g. ``"runs/omniglot-quick-cpu.html"``.

    It consists of the letters and digits of the name; a hash of the name follows where two would share an address.
    """
    slugs = {name: _slug(name) for name in names}
    count = Counter(slugs.values())
    return {
        name: f"{folder}/{slug if slug and count[slug] == 1 else f'{slug}-{_hash(name)}'.lstrip('-')}.html"
        for name, slug in slugs.items()
    }


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall(r"[a-z0-9]+", plain))[:_MOST]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
