from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from command_line import Command, assert_refused
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")


def page(metabench: Command, *arguments: str) -> str:
    ended = metabench("report", "out", *arguments)
    assert ended.code == 0, ended.err
    return Path("out/report.html").read_text(encoding="utf-8")


def test_cells_that_have_not_run_are_listed_as_unfinished(metabench: Command) -> None:
    metabench("run", "small.yaml", "--profile", "smoke", "--only", "algorithm=protonet", "--output", "out")
    listed = page(metabench).partition('<h2 id="missing">')[2].partition("</section>")[0]
    assert re.findall(r'<th scope="row" class="left">(\w+)</th><td class="left">(\w+)</td>', listed) == [
        ("siamese", "unfinished")
    ]
    assert 'id="missing"' not in page(metabench, "--only", "algorithm=protonet")
    metabench("run", "small.yaml", "--profile", "smoke", "--output", "out")
    assert 'id="missing"' not in page(metabench)


def test_a_damaged_plan_is_refused(metabench: Command) -> None:
    metabench("run", "small.yaml", "--profile", "smoke", "--only", "algorithm=protonet", "--output", "out")
    Path("out/plan.json").write_text('[{"cell": 1}]', encoding="utf-8")
    assert_refused(metabench("report", "out"), ["plan.json is damaged"])


def test_a_test_counts_its_queries_by_class(metabench: Command) -> None:
    metabench("run", "small.yaml", "--profile", "smoke", "--only", "algorithm=protonet", "--output", "out")
    store = Store(Path("out"))
    (record,) = store.records()
    tallies = store.tallies(record.cell)
    assert tallies is not None
    assert record.primary is not None
    assert int(tallies.episodes.sum()) == 10 * 2
    mean = float((tallies.accuracy * tallies.episodes).sum() / tallies.episodes.sum())
    assert mean == pytest.approx(record.primary.value, abs=1e-9)
    worst = {found.name: (found.accuracy, found.episodes) for found in record.worst_classes}
    counted = dict(
        zip(tallies.names, zip(tallies.accuracy.tolist(), tallies.episodes.tolist(), strict=True), strict=True)
    )
    assert worst
    for name, found in worst.items():
        assert counted[name] == pytest.approx(found)
    text = page(metabench)
    assert f"All classes ({len(tallies.names)})" in text


def test_totals_grow_with_the_test(metabench: Command) -> None:
    arguments = ("run", "small.yaml", "--profile", "smoke", "--only", "algorithm=protonet")
    metabench(*arguments, "--output", "out")
    suite = Path("small.yaml")
    suite.write_text(suite.read_text(encoding="utf-8").replace("episodes: 10}", "episodes: 24}"), encoding="utf-8")
    metabench(*arguments, "--output", "out")
    metabench(*arguments, "--output", "at-once")
    grown, whole = Store(Path("out")), Store(Path("at-once"))
    (record,) = grown.records()
    assert record.primary is not None
    assert record.primary.episodes == 24
    one, other = grown.tallies(record.cell), whole.tallies(record.cell)
    assert one is not None
    assert other is not None
    assert dict(zip(one.names, one.episodes, strict=True)) == dict(zip(other.names, other.episodes, strict=True))
    assert one.reliability == pytest.approx(other.reliability)


def test_an_episode_is_interpreted_from_the_kept_weights(metabench: Command) -> None:
    suite = Path("small.yaml")
    # Both channels of the small network may be dead for these images.
    suite.write_text(suite.read_text(encoding="utf-8").replace("channels: 2", "channels: 8"), encoding="utf-8")
    metabench("run", "small.yaml", "--profile", "smoke", "--output", "out")
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file() and path.suffix != ".html"}
    shown = page(metabench, "--interpret", "--episode", "1").partition('id="interpretations"')[2]
    assert "protonet · glyphs · 2-way 1-shot · conv4 · episode 1" in shown
    assert "siamese · glyphs · 2-way 1-shot · conv4 · episode 1" in shown
    weights = [float(weight) for weight in re.findall(r"weight ([\d.]+)<br>", shown)]
    assert len(weights) == 2 * 2
    assert sum(weights) == pytest.approx(2, abs=0.01), "the weights of two support images of each of two methods"
    assert "hold" in shown
    assert "of their variance" in shown
    if "captum" in sys.modules:
        assert "integrated gradients" in shown, re.findall(r"No saliency[^<]*", shown)
    after = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file() and path.suffix != ".html"}
    assert after == before


def test_weights_that_are_not_kept_cannot_be_interpreted(metabench: Command) -> None:
    metabench("run", "small.yaml", "--profile", "smoke", "--only", "algorithm=protonet", "--output", "out")
    for path in Path("out/weights").iterdir():
        path.unlink()
    assert_refused(metabench("report", "out", "--interpret"), ["keeps no weights of protonet"])
