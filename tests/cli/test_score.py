"""A metric of a plugin, in a run and on a finished run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from command_line import Command, Distributions, everything_below
from metabench.records.record import Record
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

#: A plugin of two metrics: one has a value for each episode, one pools them.
MARGINS = """
    import numpy as np

    from metabench.specs import Metric, MetricSpec, hookimpl

    class Margin(Metric):
        def of_episode(self, outputs, targets):
            ordered = np.sort(np.exp(outputs), axis=-1)
            return (ordered[..., -1] - ordered[..., -2]).mean(axis=1)

    class Rate(Metric):
        def of_episode(self, outputs, targets):
            first = (targets == 0).sum(axis=1)
            return np.stack([first, np.full(len(first), targets.shape[1])], axis=1)

        def pooled(self, means):
            return means[0] / means[1]

    @hookimpl
    def metabench_metrics():
        return [
            MetricSpec("margin", f"{__name__}:Margin", "gap of the best two", title="margin", unit="%", scale=100.0),
            MetricSpec("rate", f"{__name__}:Rate", "share of queries of the first class"),
        ]
"""


def records_in(folder: str) -> dict[str, Record]:
    return {record.algorithm: record for record in Store(Path(folder)).records()}


def values_of(records: dict[str, Record], metric: str) -> dict[str, float]:
    values = {}
    for algorithm, record in records.items():
        estimate = record.metrics[metric]
        assert estimate is not None, record.remarks
        values[algorithm] = estimate.value
    return values


def results_below(folder: Path) -> dict[str, int]:
    """Return `everything_below` but for the lock, which some versions of filelock touch."""
    return {path: changed for path, changed in everything_below(folder).items() if not path.endswith(".lock")}


def test_one_declaration_of_a_plugin_is_shown_everywhere(metabench: Command, distributions: Distributions) -> None:
    distributions.add("margins", MARGINS)
    ended = metabench("run", "small.yaml", "--output", "out", "--log", "tensorboard")
    assert ended.code == 0, ended.err
    margins = values_of(records_in("out"), "margin")
    shown = f"{margins['protonet'] * 100:.2f} ± "
    assert "margin %" in ended.out
    assert shown in ended.out
    for style in ("table", "markdown", "html"):
        assert shown in metabench("leaderboard", "out", "--format", style).out, style
    latex = metabench("leaderboard", "out", "--format", "latex", "--metrics", "margin").out
    assert shown.replace("±", "$\\pm$") in latex
    table = pd.read_csv("out/leaderboard.csv").set_index("algorithm")
    assert table["margin"].to_dict() == pytest.approx(margins)
    assert (table["margin_ci95"] > 0).all()
    rows = json.loads(metabench("leaderboard", "out", "--format", "json").out)
    assert {row["algorithm"]: row["metrics"]["margin"]["value"] for row in rows} == margins
    assert metabench("report", "out").code == 0
    assert shown in Path("out/report.html").read_text(encoding="utf-8")
    events = EventAccumulator(str(next(Path("out/tensorboard").glob("protonet*")))).Reload()
    assert events.Scalars("margin/value")[-1].value == pytest.approx(margins["protonet"])
    suite = Path("out/suite.yaml")
    text = suite.read_text(encoding="utf-8")
    suite.write_text(text.replace("tolerances: {}", "tolerances: {margin: 1.0, nll: 0.1, ece: 2.0}"), encoding="utf-8")
    judged = metabench("compare", "out", "out")
    assert judged.code == 0, judged.out + judged.err
    assert "protonet · glyphs · 2-way 1-shot · conv4 · seed 0 · margin" in judged.out
    assert "passed: 8 same" in judged.out


def test_a_finished_run_gets_the_metric_of_a_plugin(metabench: Command, distributions: Distributions) -> None:
    assert metabench("run", "small.yaml", "--output", "out").code == 0
    before = records_in("out")
    by_class = {name: Store(Path("out")).episodes(record, by_label=True).by_class for name, record in before.items()}
    distributions.add("margins", MARGINS)
    assert metabench("run", "small.yaml", "--output", "in-run").code == 0
    ended = metabench("score", "out")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [f"{name}: 2 of 2 cells, from 10 test episodes" for name in ("margin", "rate")]
    after = records_in("out")
    for algorithm, record in after.items():
        old = before[algorithm]
        assert record.metrics["rate"] == records_in("in-run")[algorithm].metrics["rate"]
        assert {name: record.metrics[name] for name in old.metrics} == old.metrics, "what was there stays"
        assert record.model_copy(update={"metrics": old.metrics, "declarations": old.declarations}) == old
        assert set(Store(Path("out")).episodes(record).figures) == set(record.metrics)
        kept = Store(Path("out")).episodes(record, by_label=True).by_class
        assert kept is not None, "a record needs it to grow"
        assert (kept == by_class[algorithm]).all()
    in_run = values_of(records_in("in-run"), "margin")
    assert values_of(after, "margin") == pytest.approx(in_run, abs=1e-3), "outputs are kept in float16"
    assert "margin %" in metabench("leaderboard", "out").out
    assert metabench("compare", "out", "in-run").code == 0
    assert metabench("score", "out").out == "every record has every metric; --metric NAME computes one again\n"


def test_a_mended_metric_is_computed_again(metabench: Command, distributions: Distributions) -> None:
    distributions.add("margins", MARGINS.replace("(ordered[..., -1] - ordered[..., -2])", "(ordered[..., -1] / 0)"))
    assert metabench("run", "small.yaml", "--output", "out", "--only", "algorithm=protonet").code == 0
    (broken,) = records_in("out").values()
    assert broken.metrics["margin"] is None
    assert any(remark.startswith("not measured: margin") for remark in broken.remarks)
    module = distributions.folder / "fake_margins.py"
    module.write_text(module.read_text().replace("/ 0", "* 1.0"), encoding="utf-8")
    sys.modules.pop("fake_margins", None)  # without fork server, the command runs in this process
    assert metabench("score", "out", "--metric", "margin").out == "margin: 1 of 1 cells, from 10 test episodes\n"
    (mended,) = records_in("out").values()
    assert mended.metrics["margin"] is not None
    assert not any("margin" in remark for remark in mended.remarks)


def test_a_metric_of_fewer_outputs_says_from_how_many(metabench: Command, distributions: Distributions) -> None:
    text = Path("small.yaml").read_text(encoding="utf-8")
    Path("few.yaml").write_text(text.replace("episodes: 10}", "episodes: 10, keep_outputs: 4}"), encoding="utf-8")
    assert metabench("run", "few.yaml", "--output", "out").code == 0
    distributions.add("margins", MARGINS)
    ended = metabench("score", "out", "--metric", "margin")
    assert ended.out == "margin: 2 of 2 cells, from the first 4 of 10 test episodes\n"
    record = records_in("out")["protonet"]
    assert (record.metrics["margin"] or record.primary).episodes == 4  # type: ignore[union-attr]
    assert Store(Path("out")).episodes(record).figures["margin"].shape == (4,)
    assert metabench("leaderboard", "out").code == 0


def keep_none(folder: Path) -> None:
    for path in (folder / "outputs").iterdir():
        path.unlink()


def of_another_cell(folder: Path) -> None:
    one, other = sorted((folder / "outputs").iterdir())
    shutil.copy(one, other)


def damaged(folder: Path) -> None:
    for path in (folder / "outputs").iterdir():
        path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "arguments", "message"),
    [
        (keep_none, [], "out has no kept outputs: set eval.keep_outputs in the suite, and run it again with --fresh"),
        (of_another_cell, ["--metric", "nll"], "are not those of its record"),
        (damaged, ["--metric", "nll"], "cannot read the kept outputs"),
        (None, ["--metric", "nlll"], "no metric 'nlll' (did you mean 'nll'?)"),
        (None, ["--metric", "accuracy"], "'accuracy' ranks the methods"),
    ],
)
def test_what_cannot_be_scored_is_refused_and_nothing_is_written(
    metabench: Command, damage: Callable[[Path], None] | None, arguments: list[str], message: str
) -> None:
    assert metabench("run", "small.yaml", "--output", "out").code == 0
    if damage:
        damage(Path("out"))
    before = results_below(Path("out"))
    ended = metabench("score", "out", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert results_below(Path("out")) == before


def test_a_missing_directory_is_refused(metabench: Command) -> None:
    ended = metabench("score", "nowhere")
    assert ended.code == 2
    assert re.fullmatch(r"metabench: no directory nowhere: .*\n", ended.err)
