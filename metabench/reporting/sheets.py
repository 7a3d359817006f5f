"""Small tables with a caption, as text, Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tabulate import tabulate

from metabench.reporting.markup import escape_latex, escape_markdown
from metabench.text import encodable, one_line


@dataclass(frozen=True)
class Entry:
    """One entry of a sheet.

    Attributes:
        text: a value, e.g. ``"81.20 ± 0.63"``.
        best: whether it is the best of its column.
        tie: whether it ties with the best.
    """

    text: str = ""
    best: bool = False
    tie: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table with a caption.

    Attributes:
        title: its heading; LaTeX has the caption alone.
        caption: what it shows; ``{best}`` stands for the way in which the markup shows the best.
        label: key for LaTeX's references.
        headings: headings of the columns.
        groups: headings above them, each with the number of its columns; empty for none. Other markups than LaTeX put
            them before the headings.
        lines: the entries of each row.
        below: lines after a rule, e.g. that of chance.
        notes: sentences below the table.
        left: number of first columns that are aligned left; LaTeX centres the others.
    """

    title: str
    caption: str
    label: str
    headings: Sequence[str]
    lines: Sequence[Sequence[Entry]]
    groups: Sequence[tuple[str, int]] = ()
    below: Sequence[Sequence[Entry]] = ()
    notes: Sequence[str] = ()
    left: int = 1

    @property
    def whole_headings(self) -> list[str]:
        """Return each heading with that of its group."""
        groups = [name for name, width in self.groups for _ in range(width)] or [""] * len(self.headings)
        return [f"{group} {heading}".strip() for group, heading in zip(groups, self.headings, strict=True)]


def render_sheets(sheets: Sequence[Sheet], style: str, encoding: str = "utf-8") -> str:
    """Return sheets in a markup.

    Args:
        sheets: the sheets.
        style: ``"table"`` for text, ``"markdown"``, ``"latex"``, which needs the package booktabs, or ``"html"``.
        encoding: the terminal's encoding, for text.
    """
    renders: Mapping[str, Callable[[Sheet], str]] = {
        "table": partial(_text, encoding=encoding),
        "markdown": _markdown,
        "latex": _latex,
        "html": _html,
    }
    parts = [renders[style](sheet) for sheet in sheets]
    if style == "latex":
        parts.insert(0, "% \\usepackage{booktabs}")
    return "\n\n".join(parts) + "\n"


def _text(sheet: Sheet, encoding: str) -> str:
    plain = partial(encodable, encoding=encoding)

    def shown(entry: Entry) -> str:
        return plain(entry.text) + (" *" if entry.best else " =" if entry.tie else "")

    lines = [line.rstrip() for line in _tabulated(sheet, "simple", shown, plain).splitlines()]
    notes = [_caption(sheet, "*"), *sheet.notes]
    return "\n".join([plain(sheet.title), *lines, "", *map(plain, notes)])


def _markdown(sheet: Sheet) -> str:
    def shown(entry: Entry) -> str:
        text = escape_markdown(entry.text)
        return f"**{text}**" if entry.best else f"{text} =" if entry.tie else text

    table = _tabulated(sheet, "github", shown, escape_markdown)
    notes = [escape_markdown(line) for line in (_caption(sheet, "Bold"), *sheet.notes)]
    return "\n\n".join([f"### {escape_markdown(sheet.title)}", table, *notes])


def _html(sheet: Sheet) -> str:
    def cell(entry: Entry, place: int) -> str:
        text = html.escape(entry.text)
        text = f"<strong>{text}</strong>" if entry.best else f"{text} =" if entry.tie else text
        return f'<th scope="row">{text}</th>' if place == 0 else f"<td>{text}</td>"

    head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in sheet.whole_headings)
    rows = ["".join(cell(entry, place) for place, entry in enumerate(line)) for line in (*sheet.lines, *sheet.below)]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    notes = "".join(f"\n<p>{html.escape(line)}</p>" for line in sheet.notes)
    return (
        f"<h3>{html.escape(sheet.title)}</h3>\n<table>\n<caption>{html.escape(_caption(sheet, 'Bold'))}</caption>\n"
        f"<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>{notes}"
    )


def _latex(sheet: Sheet) -> str:
    def shown(entry: Entry) -> str:
        value, *half = map(escape_latex, entry.text.split(" ± ", 1))
        text = " $\\pm$ ".join([f"\\textbf{{{value}}}" if entry.best else value, *half])
        return f"{text}$^{{=}}$" if entry.tie else text

    def rows(lines: Sequence[Sequence[Entry]]) -> list[str]:
        return [" & ".join(map(shown, line)) + r" \\" for line in lines]

    others = len(sheet.headings) - sheet.left
    head = [" & ".join(map(escape_latex, sheet.headings)) + r" \\"]
    if any(name for name, _ in sheet.groups):
        spans = [f"\\multicolumn{{{width}}}{{c}}{{{escape_latex(name)}}}" for name, width in sheet.groups]
        ends = [sum(width for _, width in sheet.groups[: place + 1]) for place in range(len(sheet.groups))]
        rules = [
            f"\\cmidrule(lr){{{end - width + 1}-{end}}}"
            for (name, width), end in zip(sheet.groups, ends, strict=True)
            if name
        ]
        head = [" & ".join(spans) + r" \\", " ".join(rules), *head]
    lines = [
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{escape_latex(_caption(sheet, 'Bold'))}}}",
        f"\\label{{{sheet.label}}}",
        r"\medskip",
        f"\\begin{{tabular}}{{{'l' * sheet.left}{'c' * others}}}",
        r"\toprule",
        *head,
        r"\midrule",
        *rows(sheet.lines),
        *([r"\midrule", *rows(sheet.below)] if sheet.below else []),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"\\par\\smallskip\\footnotesize {escape_latex(note)}" for note in sheet.notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _caption(sheet: Sheet, best: str) -> str:
    return one_line(sheet.caption.replace("{best}", best))


def _tabulated(sheet: Sheet, style: str, shown: Callable[[Entry], str], escape: Callable[[str], str]) -> str:
    return tabulate(
        [[shown(entry) for entry in line] for line in (*sheet.lines, *sheet.below)],
        headers=[escape(heading) for heading in sheet.whole_headings],
        tablefmt=style,
        disable_numparse=True,
        colalign=["left"] * len(sheet.headings),
    )
