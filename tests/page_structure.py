"""The structure of a page as a screen reader meets it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Table:
    """What a parser has seen of a table."""

    caption: str = ""
    heads: list[str | None] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


class Structure(HTMLParser):
    """Collects headings, tables, images and marks of methods."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.tables: list[Table] = []
        self.without_alt = 0
        self.marks: dict[str, set[str]] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self._inside: list[str] = []
        self._mark = ""

    @property
    def targets(self) -> list[str]:
        """Return the ids that links of the page lead to."""
        return [link[1:] for link in self.links if link.startswith("#")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [str(given["id"])] if "id" in given else []
        self.links += [str(given["href"])] if tag == "a" else []
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "table":
            self.tables.append(Table())
        if tag == "tr":
            self.tables[-1].rows.append([])
        if tag in ("th", "td"):
            self.tables[-1].rows[-1].append(tag)
        if tag == "th":
            self.tables[-1].heads.append(given.get("scope"))
        if tag == "img" and not given.get("alt"):
            self.without_alt += 1
        if given.get("class") == "mark":
            self._mark = str(given["style"])
        if tag not in ("meta", "link", "img", "input", "br"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "caption" in self._inside and self.tables:
            self.tables[-1].caption += data
        if self._mark and data.strip() and "span" not in self._inside:
            self.marks.setdefault(data.strip(), set()).add(self._mark)
            self._mark = ""
