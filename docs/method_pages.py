"""Write a page for each built-in method: docs/methods/NAME.md, and an index, docs/methods/README.md.

python docs/method_pages.py

A page has what the method's class and announcement say (`metabench list NAME --format markdown`), and its golden
number and costs: those of the committed run of the suite `methods`, results/methods.
"""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from metabench.cli.description import as_markdown, describe
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager
from metabench.reporting.figures import number, shown
from metabench.specs import AlgorithmSpec

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "methods"


def pages() -> dict[str, str]:
    """Return the text of each page, by its file's name."""
    plugins = PluginManager.from_environment()
    records = {record.algorithm: record for record in Store(RESULTS).records() if record.status == "ok"}
    built_in = {name: spec for name, spec in plugins.algorithms().items() if _is_built_in(plugins, name)}
    written = {
        f"{name}.md": "\n\n".join([as_markdown(describe(name, plugins)), *_measured(records.get(name))]) + "\n"
        for name in built_in
    }
    return {"README.md": _index(built_in, records), **written}


def _is_built_in(plugins: PluginManager, name: str) -> bool:
    return str(plugins.provider("algorithm", name)).startswith("metabench ")


def _index(specs: dict[str, AlgorithmSpec], records: dict[str, Record]) -> str:
    rows = [
        [f"[{name}]({name}.md)", spec.reference, spec.summary, *_figures(records.get(name))]
        for name, spec in specs.items()
    ]
    titles = ["method", "paper", "", "accuracy %", "T", "alone %", "p50 ms", "GFLOP"]
    return (
        "# Methods\n\nThe suite `methods` gave these figures: 5-way 1-shot on `glyphs`, a network of four blocks "
        "of 32 channels, 300 training steps, 600 test episodes. They are golden numbers, which later versions have to "
        "reach again, and no benchmark: every method is trained for seconds, with few parameters chosen for it.\n\n"
        + tabulate(rows, titles, tablefmt="github", disable_numparse=True)
        + "\n"
    )


def _measured(record: Record | None) -> list[str]:
    """Return the golden numbers and costs of a method."""
    if record is None:
        return []
    titles = ["accuracy %", "T", "alone %", "p50 ms", "GFLOP"]
    table = tabulate([_figures(record)], titles, tablefmt="github", disable_numparse=True)
    return [
        "## Golden number and cost",
        f"`metabench run methods --only algorithm={record.algorithm}`: {record.way}-way {record.shot}-shot on "
        f"`{record.dataset}`, on {record.machine}. Milliseconds and operations are of one test episode.",
        table,
    ]


def _figures(record: Record | None) -> list[str]:
    if record is None or record.primary is None or record.eval is None:
        return [""] * 5
    alone = record.inductive_accuracy
    return [
        shown(record.ranking, record.primary.value, record.primary.ci95),
        "T" if record.transductive else "",
        shown(record.ranking, alone.value, alone.ci95) if alone else "",
        number(record.eval.latency_ms.p50),
        number((record.flops_per_episode or 0) / 1e9),
    ]


if __name__ == "__main__":
    folder = ROOT / "docs" / "methods"
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
