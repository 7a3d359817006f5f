from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kept_results import KeptResults
from metabench.analysis.standings import make_tables
from metabench.analysis.stats import mean_interval
from metabench.analysis.tables import Row, Table
from metabench.cli import main
from metabench.cli.leaderboard import SORTS
from metabench.errors import UsageError
from metabench.records.measured import Declaration, Estimate
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store
from metabench.reporting.rendering import (
    frame,
    render_csv,
    render_html,
    render_json,
    render_latex,
    render_markdown,
    render_text,
)
from metabench.reporting.sorting import SORT_KEYS, sort_tables
from metabench.specs import PublishedResult

Make = Callable[..., Record]
Tables = Callable[..., list[Table]]

HOSTILE = "<script>alert(`x`)</script> | **b** _i_ [l](u) # \\ &lt; $x^2$ % {y}"


@pytest.fixture
def tables_of(make_results: Callable[..., EpisodeResults]) -> Tables:
    """Return a function that makes tables of records, whose episodes have the records' mean accuracies."""

    def make(records: Sequence[Record], published: Sequence[PublishedResult] = ()) -> list[Table]:
        def read(record: Record) -> EpisodeResults:
            assert record.primary is not None
            return make_results(record.primary.value)

        return make_tables(records, KeptResults(read), published)

    return make


@pytest.fixture
def records(make_record: Make) -> list[Record]:
    return [
        make_record(0.5, algorithm="middling", cell="a" * 16),
        make_record(None, algorithm="broken", cell="b" * 16),
        make_record(0.9, algorithm="best", cell="c" * 16, transductive=True),
        make_record(0.1, algorithm="worst", cell="d" * 16, environment={"cuda": "12.4"}, device="A GPU"),
        make_record(0.95, algorithm="alone", cell="e" * 16, shot=5),
    ]


def lines_of_table(text: str) -> list[str]:
    """Return the lines of methods: they begin with a rank, or with room for one."""
    others = ("accuracy %", " chance ")
    return [
        line
        for line in text.splitlines()
        if re.match(r"\s*(\d=?)?\s+[a-z]+\d?  ", line) and not any(other in f"{line} " for other in others)
    ]


def test_a_table_says_on_which_dataset_its_methods_were_trained(make_record: Make, tables_of: Tables) -> None:
    within = make_record(0.9, cell="a" * 16, identity={"seed": 0})
    across = make_record(0.5, cell="b" * 16, identity={"seed": 0, "trained_on": {"name": "other"}}, trained_on="other")
    alone = make_record(0.7, cell="c" * 16, shot=5, identity={"seed": 0})
    tables = tables_of([across, within, alone])
    text = render_text(tables)
    assert re.search(r"#\s+algorithm\s+trained on\s+accuracy %", text)
    rows = {row.name: row.trained_on for row in tables[0].rows}
    algorithm, dataset = within.algorithm, within.dataset
    assert rows == {f"{algorithm} (trained on {dataset})": dataset, f"{algorithm} (trained on other)": "other"}
    assert [row.trained_on for row in tables[1].rows] == [""]
    table = pd.read_csv(io.StringIO(render_csv(tables)))
    assert list(table["trained_on"]) == [dataset, "other", dataset]
    assert "trained on" not in render_text(tables_of([within, alone]))


#: A metric of which low values are better.
LOSS = {"title": "loss", "better": "low", "unit": "", "scale": 1.0, "summary": "made up"}


def with_loss(record: Record, value: float, ci95: float = 0.0123) -> Record:
    """Return a record with another metric."""
    loss = Estimate(value=value, ci95=ci95, std=0.1, episodes=100)
    return record.model_copy(
        update={
            "metrics": {**record.metrics, "loss": loss},
            "declarations": {**record.declarations, "loss": Declaration.model_validate(LOSS)},
        }
    )


# ----------------------------------------------------------------------------------------------- metrics


def test_metrics_are_columns_where_there_is_room_or_by_name(make_record: Make, tables_of: Tables) -> None:
    tables = tables_of([with_loss(make_record(0.5), 0.4321), make_record(0.4, algorithm="two", cell="b" * 16)])
    for text in (render_text(tables), render_markdown(tables), render_html(tables), render_latex(tables, ["loss"])):
        assert "0.432 ± 0.012" in text.replace("$\\pm$", "±")
        assert "loss: made up ± half its 95 % interval" in text
    narrow = render_text(tables, 80)
    assert "loss" in narrow.partition("left out of a narrow terminal: ")[2]
    assert "50.00 ± 1.00" in narrow
    for text in (render_text(tables, metrics=[]), render_markdown(tables, metrics=[]), render_latex(tables)):
        assert "loss" not in text
    assert pd.read_csv(io.StringIO(render_csv(tables)))["loss"].tolist()[0] == 0.4321
    assert [row["metrics"].get("loss", {}).get("value") for row in json.loads(render_json(tables))] == [0.4321, None]


@pytest.mark.parametrize(
    ("value", "ci95", "shown"),
    [
        (1234.5, 67.8, "1234 ± 68"),
        (0.4321, 0.0123, "0.432 ± 0.012"),
        (0.5, 0.0, "0.500 ± 0.000"),
        (2.0, 0.3, "2.00 ± 0.30"),
    ],
)
def test_a_value_has_two_digits_of_its_interval(
    make_record: Make, tables_of: Tables, value: float, ci95: float, shown: str
) -> None:
    assert f" {shown} " in render_text(tables_of([with_loss(make_record(0.5), value, ci95)]))


def test_a_metric_of_low_values_is_sorted_from_its_best(make_record: Make, tables_of: Tables) -> None:
    records = [
        with_loss(make_record(0.5, algorithm=name, cell=name * 16), value)
        for name, value in (("a", 0.2), ("b", 0.1), ("c", 0.3))
    ]
    (table,) = sort_tables(tables_of([*records, make_record(0.9, algorithm="d", cell="d" * 16)]), "loss")
    assert [row.name for row in table.rows] == ["b", "a", "c", "d"], "rows without the metric come last"
    with pytest.raises(UsageError, match=r"no record has 'los' \(did you mean 'loss'\?\)"):
        sort_tables([table], "los")


def test_methods_can_be_ranked_by_a_metric_of_low_values(make_record: Make) -> None:
    values = {"a": 4.0, "b": 3.0, "c": 5.0}
    records = [
        with_loss(make_record(0.5, algorithm=name, cell=name * 16), value, 0.2).model_copy(update={"ranked_by": "loss"})
        for name, value in values.items()
    ]
    noise = np.resize([0.5, -0.5], 100)

    def read(record: Record) -> EpisodeResults:
        shift = np.random.default_rng(ord(record.algorithm)).normal(0, 0.01, 100)
        return EpisodeResults({"loss": values[record.algorithm] + noise + shift}, np.zeros((100, 5), dtype=np.int64))

    tables = make_tables(records, KeptResults(read))
    text = render_text(tables)
    best, second, last = lines_of_table(text)
    assert re.match(r"\s*1\s+b\s+3\.00\d ± 0\.100\s", best)
    assert re.match(r"\s*2\s+a\s+(4\.00|3\.99)\d ± 0\.100\s+\+(1\.00|0\.99)", second)
    assert re.match(r"\s*3\s+c\s", last)
    assert pd.read_csv(io.StringIO(render_csv(tables)))["loss"].tolist() == [3.0, 4.0, 5.0]


# -------------------------------------------------------------------------------------------------- text


def test_each_dataset_backbone_way_and_shot_has_its_own_table(make_record: Make, tables_of: Tables) -> None:
    text = render_text(
        tables_of(
            [
                make_record(0.5),
                make_record(0.5, dataset="other"),
                make_record(0.5, backbone="wide"),
                make_record(0.5, way=20),
                make_record(0.5, shot=5),
            ]
        )
    )
    titles = [line for line in text.splitlines() if "-way" in line]
    assert titles == [
        "glyphs · 5-way 1-shot · conv4 · 100 test episodes",
        "glyphs · 5-way 5-shot · conv4 · 100 test episodes",
        "glyphs · 20-way 1-shot · conv4 · 100 test episodes",
        "glyphs · 5-way 1-shot · wide · 100 test episodes",
        "other · 5-way 1-shot · conv4 · 100 test episodes",
    ]


def test_oddities_of_the_data_are_said_once_a_table(make_record: Make, tables_of: Tables) -> None:
    data = {
        "episodes": "a",
        "raw_files": 0,
        "duplicates": {"test": 2},
        "remarks": ["2 images of test identical to another"],
    }
    records = [make_record(0.5, algorithm=name, cell=name, data=data) for name in ("one", "two")]
    for render in (render_text, render_markdown):
        assert render(tables_of(records)).count("glyphs: 2 images of test identical to another") == 1


def test_a_remark_is_said_once_with_the_methods_that_have_it(make_record: Make, tables_of: Tables) -> None:
    own = {"one": ["of all", "of two"], "two": ["of all", "of two"], "three": ["of all"]}
    records = [make_record(0.5, algorithm=name, cell=name, remarks=remarks) for name, remarks in own.items()]
    text = render_text(tables_of(records))
    assert [line for line in text.splitlines() if "of all" in line] == ["all methods: of all"]
    (line,) = (line for line in text.splitlines() if "of two" in line)
    assert sorted(line.removesuffix(": of two").split(", ")) == ["one", "two"]
    (alone,) = tables_of(records[:1])
    assert "one: of all" in render_text([alone])


def test_the_text_says_what_was_measured(records: list[Record], tables_of: Tables) -> None:
    text = render_text(tables_of(records))
    best, middling, worst, broken, alone = lines_of_table(text)
    assert re.match(r"\s*1\s+best\s+90\.00 ± 1\.00\s+T\s.*\s100\s+20\s+256\s+1\.5\s+2\.5\s+1,234\s+cpu$", best)
    assert re.match(r"\s*2\s+middling\s+50\.00 ± 1\.00\s+−40\.00 ± 0\.00\s+<\.001\s", middling)
    assert re.match(r"\s*3\s+worst\s.*cuda$", worst)
    assert re.match(r"\s+broken\s+failed\s+–", broken)
    assert re.match(r"\s*1\s+alone", alone)
    assert "broken failed: it broke" in text
    assert "cpu: A processor, 2 threads" in text
    assert "cuda: A GPU" in text
    assert "95 % interval" in text


@pytest.mark.parametrize("render", [render_text, render_markdown, render_latex, render_html])
def test_chance_is_the_last_line_of_every_table(
    make_record: Make, tables_of: Tables, render: Callable[[list[Table]], str]
) -> None:
    way = {"way": 3, "cell": "b" * 16}
    text = render(tables_of([make_record(0.9), make_record(0.8, **way), make_record(None, **way, algorithm="two")]))
    chance = [re.sub(r"<[^>]*>|[|&\\\s]+", " ", line).split() for line in text.splitlines() if "chance" in line]
    assert [words for words in chance if len(words) == 2] == [["chance", "33.33"], ["chance", "20.00"]]


def test_chance_is_that_of_the_record_where_ways_vary(make_record: Make, tables_of: Tables) -> None:
    varying = {"way": 0, "shot": 0, "queries": 0}
    (table,) = tables_of([make_record(0.9, **varying, chance=0.0815)])
    assert table.chance == 0.0815
    (table,) = tables_of([make_record(0.9, **varying)])
    assert table.chance is None
    assert "chance" not in render_text([table])


def test_chance_means_nothing_where_another_metric_ranks(make_record: Make) -> None:
    nll = {"metrics": {"nll": {"value": 0.5, "ci95": 0.01, "std": 0.1, "episodes": 100}}}
    declared = {"nll": {"title": "NLL", "better": "low"}}
    record = make_record(0.5, **nll, declarations=declared, ranked_by="nll", chance=0.2)
    assert Table("glyphs", "conv4", 5, 1, [Row("one", [record])]).chance is None


def test_the_validation_of_an_engine_is_sorted_by_its_own_metric(make_record: Make) -> None:
    def row(name: str, validated: float) -> Row:
        reward = {"metrics": {"reward": {"value": 0.5, "ci95": 0.01, "std": 0.1, "episodes": 100}}}
        train = {"steps": 1, "episodes": 1, "seconds": 1.0, "episodes_per_second": 1.0, "best_step": 1}
        curve = {"validation": [{"step": 1, "value": validated}]}
        declared = {"reward": {"title": "reward"}}
        engine = {"declarations": declared, "ranked_by": "reward", "task": "regression", "train": {**train, **curve}}
        return Row(name, [make_record(0.5, **reward, **engine)], primary=mean_interval(np.array([0.4, 0.6])))

    (table,) = sort_tables([Table("bandits", "", 1, 1, [row("worse", -9.0), row("better", 2.0)])], "validation")
    assert [row.name for row in table.rows] == ["better", "worse"]


def test_floors_are_below_the_others_without_a_rank_or_a_comparison(make_record: Make, tables_of: Tables) -> None:
    methods = [make_record(0.5, algorithm="low", cell="a"), make_record(0.9, algorithm="high", cell="b")]
    floors = [make_record(0.7, algorithm="pixel", cell="c", floor=True), make_record(0.3, cell="d", floor=True)]
    broken = make_record(None, algorithm="broken", cell="e")
    (plain,) = tables_of(methods)
    (table,) = tables_of([*floors, broken, *methods])
    assert [row.name for row in table.rows] == ["high", "low", "pixel", "one", "broken"]
    assert [row.rank for row in table.rows] == [1, 2, None, None, None]
    assert [row.p_holm for row in table.rows[:2]] == [row.p_holm for row in plain.rows]
    assert all(row.versus_best is None and row.p_holm == {} for row in table.rows[2:])
    (resorted,) = sort_tables([table])
    assert [row.name for row in resorted.rows] == [row.name for row in table.rows]
    (by_name,) = sort_tables([table], "algorithm")
    assert [row.name for row in by_name.rows] == ["high", "low", "one", "pixel", "broken"]
    text = render_text([table])
    assert "floors, neither ranked nor compared: pixel, one" in text
    assert "other episodes" not in text


def test_skipped_cells_are_named_with_the_reason(make_record: Make, tables_of: Tables) -> None:
    skipped = {"status": "skipped", "error": "one output per class"}
    tables = tables_of([make_record(0.5), make_record(None, algorithm="two", cell="b", **skipped)])
    first, last = lines_of_table(render_text(tables))
    assert re.match(r"\s*1\s+one\s", first)
    assert re.match(r"\s+two\s+skipped\s+–", last)
    for render in (render_text, render_markdown, render_html, render_latex):
        assert "two is skipped: one output per class" in render(tables)
        assert "failed" not in render(tables)
    of_csv = pd.read_csv(io.StringIO(render_csv(tables))).iloc[1]
    of_json = json.loads(render_json(tables))[1]
    assert (of_csv["status"], of_csv["error"]) == (of_json["status"], of_json["error"]) == ("skipped", skipped["error"])


def test_seeds_are_one_row_with_their_own_interval(make_record: Make, tables_of: Tables) -> None:
    one = render_text(tables_of([make_record(0.5, seed=3)]))
    assert "seeds" not in one
    two = render_text(tables_of([make_record(0.5, seed=3), make_record(0.6, seed=4, cell="b" * 16)]))
    assert "100 test episodes · 2 training seeds" in two
    (line,) = lines_of_table(two)
    assert re.match(r"\s+1\s+one\s+55\.00 ± 1\.00\s+± \d\.\d\d\s+± 63\.53\s", line), "t of one degree: 12.706 · 5 %"


def test_a_narrow_terminal_loses_columns_and_says_which(records: list[Record], tables_of: Tables) -> None:
    tables = tables_of(records)
    whole = render_text(tables)
    assert "left out" not in whole
    widest = max(len(line) for line in whole.splitlines() if line.startswith("---"))
    assert "left out" not in render_text(tables, widest)
    narrow = render_text(tables, 50)
    assert all(len(line) <= 50 for line in lines_of_table(narrow))
    (note,) = [line for line in narrow.splitlines() if line.startswith("left out")]
    assert note.endswith("params, device (see --format csv)")
    assert "p50, p95" not in narrow.replace(note, ""), "what is left out is not explained"
    shown = narrow.splitlines()[1]
    left_out = note.partition(": ")[2].partition(" (")[0].split(", ")
    assert [title for title in left_out if title in shown.split("  ")] == []


def test_however_narrow_the_algorithm_and_its_accuracy_stay(make_record: Make, tables_of: Tables) -> None:
    text = render_text(tables_of([make_record(0.5, algorithm=name, cell=name) for name in "ab"]), 5)
    assert text.count("50.00 ± 1.00") == 2
    assert re.search(r"1\s+a\s", text)


def test_an_accuracy_of_everything_and_of_nothing_is_shown(make_record: Make, tables_of: Tables) -> None:
    text = render_text(
        tables_of([make_record(1.0, algorithm="all"), make_record(0.0, algorithm="none", cell="b" * 16)])
    )
    assert "100.00 ± 1.00" in text
    assert "0.00 ± 1.00" in text


def test_a_tie_shares_the_rank_and_says_what_would_settle_it(
    make_record: Make, make_results: Callable[..., EpisodeResults]
) -> None:
    records = [make_record(mean, algorithm=f"m{i}", cell=str(i)) for i, mean in enumerate((0.9, 0.8999, 0.5))]
    noise = {"0": 1, "1": 2, "2": 3}
    read = KeptResults(lambda record: make_results(record.primary and record.primary.value, noise=noise[record.cell]))
    tables = make_tables(records, read)
    first, tied, last = lines_of_table(render_text(tables))
    assert re.match(r"\s+1\s+m0", first)
    assert re.match(r"\s+1=\s+m1", tied)
    assert re.match(r"\s+3\s+m2", last)
    assert re.search(
        r"m1 ties with the best; .*, ([\d,]{5,}|more than a million) episodes would show it", render_text(tables)
    )


def test_a_published_result_stands_beside_with_what_differs(make_record: Make, tables_of: Tables) -> None:
    identity = {"algorithm": {"name": "one"}, "dataset": {"name": "glyphs"}, "train": {"steps": 10}}
    result = PublishedResult("one", "glyphs", 5, 1, 0.987, "Doe 2020", 0.004, protocol={"train.steps": 60000})
    tables = tables_of([make_record(0.9, identity=identity)], [result])
    assert "98.7 ± 0.4*" in render_text(tables)
    text = unescaped(render_markdown(tables))
    assert "one 5-way 1-shot: 98.7 ± 0.4 % in Doe 2020; other protocol: train.steps: 60000 there, 10 here" in text
    same = PublishedResult("one", "glyphs", 5, 1, 0.987, "Doe 2020", protocol={"train.steps": 10})
    tables = tables_of([make_record(0.9, identity=identity)], [same])
    assert re.search(r"\s98\.7\s", render_text(tables))
    assert "in Doe 2020; the same protocol" in unescaped(render_markdown(tables))


# ------------------------------------------------------------------------------------ varying parameters


def tuned(make_record: Make, label: str, use: str = "maml", shot: int = 1, **params: object) -> Record:
    """Return a record of an algorithm with parameters; `norm` is that of its backbone."""
    norm = params.pop("norm", "running")
    identity = {"algorithm": {"name": use, "params": params}, "backbone": {"params": {"channels": 4, "norm": norm}}}
    return make_record(0.5 + len(label) / 100, algorithm=label, cell=f"{label}{shot}", shot=shot, identity=identity)


@pytest.fixture
def grid(make_record: Make, tables_of: Tables) -> list[Table]:
    return tables_of(
        [
            tuned(make_record, "maml", lr=0.1, steps=5, order=[1, 2]),
            tuned(make_record, "fast", lr=0.2, steps=5, order=[1, 2]),
            tuned(make_record, "support", lr=0.1, steps=5, order=[2, 1], norm="support"),
            tuned(make_record, "protonet", "protonet", lr=1.0, norm="batch"),
            tuned(make_record, "alone", shot=5, lr=7.0, steps=9),
        ]
    )


def test_parameters_that_vary_between_entries_of_one_algorithm_are_columns(grid: list[Table]) -> None:
    lines = render_text(grid).splitlines()
    assert lines[1].split("device")[1].split() == ["lr", "order", "backbone.norm"]
    assert {line.split()[1]: line.partition(" cpu ")[2].split() for line in lines_of_table("\n".join(lines))} == {
        "maml": ["0.1", "[1,2]", "running"],
        "fast": ["0.2", "[1,2]", "running"],
        "support": ["0.1", "[2,1]", "support"],
        "protonet": [],
        "alone": [],
    }


def test_columns_of_parameters_are_the_first_to_leave_a_narrow_terminal(grid: list[Table]) -> None:
    whole = max(map(len, render_text(grid[:1]).splitlines()[1:3]))
    narrow = render_text(grid[:1], whole - 1)
    assert "left out of a narrow terminal: backbone.norm (see --format csv)" in narrow
    assert re.search(r"device +lr +order$", narrow.splitlines()[1])


def test_csv_and_json_have_the_parameters_that_vary(grid: list[Table]) -> None:
    read = pd.read_csv(io.StringIO(render_csv(grid))).set_index("algorithm")
    assert [name for name in read.columns if name.startswith("params.")] == [
        "params.lr",
        "params.order",
        "params.backbone.norm",
    ]
    assert read.loc["fast", "params.lr"] == 0.2
    assert read.loc["support", "params.order"] == "[2,1]"
    assert np.isnan(read.loc["protonet", "params.lr"])
    params = {entry["algorithm"]: entry["params"] for entry in json.loads(render_json(grid))}
    assert params["support"] == {"lr": 0.1, "order": [2, 1], "backbone.norm": "support"}
    assert params["protonet"] == params["alone"] == {}


def test_hostile_parameters_do_nothing(make_record: Make, tables_of: Tables) -> None:
    records = [tuned(make_record, label, **{HOSTILE: f"{HOSTILE}\x1b{label}"}) for label in ("one", "three")]
    tables = tables_of(records)
    assert "\x1b" not in render_text(tables) + render_csv(tables) + render_markdown(tables)
    rows = [line for line in render_markdown(tables).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}) == 1, "a parameter made a column"
    reader = Reader()
    reader.feed(render_html(tables))
    assert "script" not in reader.tags


def test_limits_of_what_a_training_saw_are_columns(make_record: Make, tables_of: Tables) -> None:
    def trained(label: str, **subset: int) -> Record:
        identity = {"algorithm": {"name": "maml"}, **({"subset": subset} if subset else {})}
        return make_record(0.5, algorithm=label, cell=label, identity=identity)

    tables = tables_of([trained("few", classes=5, images_per_class=2), trained("more", classes=10), trained("all")])
    read = pd.read_csv(io.StringIO(render_csv(tables)), index_col="algorithm")
    assert read["params.train.classes"].to_dict() == pytest.approx({"few": 5, "more": 10, "all": np.nan}, nan_ok=True)
    assert read.loc["few", "params.train.images_per_class"] == 2
    (alone,) = tables_of([trained("few", classes=5)])
    assert dict(alone.rows[0].params) == {"train.classes": 5}, "a table of one method says it, too"


def test_a_published_result_is_of_all_training_classes(make_record: Make, tables_of: Tables) -> None:
    identity = {"algorithm": {"name": "one"}, "dataset": {"name": "glyphs"}, "subset": {"classes": 5}}
    result = PublishedResult("one", "glyphs", 5, 1, 0.987, source="Doe")
    (table,) = tables_of([make_record(0.9, identity=identity)], [result])
    (row,) = table.rows
    assert row.published is not None
    assert row.published.differences == ("train.classes: all there, 5 here",)


@pytest.mark.parametrize("identity", [{"algorithm": 3}, {"algorithm": {"params": [1]}}, {"backbone": {"params": None}}])
def test_records_without_parameters_have_no_columns_of_them(
    identity: dict[str, object], make_record: Make, tables_of: Tables
) -> None:
    records = [make_record(0.5, identity=identity), make_record(0.6, cell="b", identity={**identity, "seed": 1})]
    assert [row.params for table in tables_of(records) for row in table.rows] == [{}]


# --------------------------------------------------------------------------------- markdown, latex, html


def hostile(make_record: Make) -> list[Record]:
    return [
        make_record(0.5, algorithm=HOSTILE, device=HOSTILE, backbone=HOSTILE, cell="a" * 16),
        make_record(
            None, algorithm=f"{HOSTILE}!", error=f"{HOSTILE}\n\n# big\n| a | b |", backbone=HOSTILE, cell="b" * 16
        ),
    ]


def test_markdown_is_one_table_a_group(records: list[Record], tables_of: Tables) -> None:
    text = render_markdown(tables_of(records))
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 1
    assert sum(line.startswith("### ") for line in text.splitlines()) == 2
    assert "broken failed: it broke" in text


def unescaped(text: str) -> str:
    return unescape(re.sub(r"\\([\\`*_\[\]<>|#&~$])", r"\1", text))


def test_hostile_names_are_shown_in_markdown_and_do_nothing(make_record: Make, tables_of: Tables) -> None:
    text = render_markdown(tables_of(hostile(make_record)))
    assert "<script" not in text
    columns = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert len(columns) == 1, "a name made a column"
    assert not re.search(r"(?<!\\)(?:\\\\)*[$~]", text), "a name made mathematics"
    for line in text.splitlines():
        assert not re.search(r"(?<!\\)(?:\\\\)*`", line), "a name made code"
        assert not re.match(r"# ", line), "a message made a heading"
    assert unescaped(text).count(HOSTILE) == 6
    assert text.count("### ") == 1


class Reader(HTMLParser):
    """Collects the tags and the text of a fragment."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_tables_and_hostile_names_are_text(make_record: Make, tables_of: Tables) -> None:
    reader = Reader()
    reader.feed(render_html(tables_of(hostile(make_record))))
    assert set(reader.tags) <= {"h3", "table", "thead", "tbody", "tr", "th", "td", "p", "ul", "li"}
    assert reader.tags.count("table") == 1
    assert reader.text.count(HOSTILE) == 6


def test_latex_has_rules_and_escapes(make_record: Make, tables_of: Tables) -> None:
    text = render_latex(tables_of(hostile(make_record)))
    assert [text.count(f"\\{rule}") for rule in ("toprule", "midrule", "bottomrule", "hline")] == [1, 1, 1, 0]
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"\textasciicircum{}" in body
    assert not re.search(r"(?<!\\)[#%_](?!.*\\caption)", body.replace(r"\_", ""))
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1, "a name made a column"
    assert r"50.00 $\pm$ 1.00" in body
    assert body.count("{") == body.count("}")


# ---------------------------------------------------------------------------------- csv, json and sorting


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with None for whatever is missing."""
    return table.astype(object).where(table.notna(), None)


def test_csv_holds_all_figures_unrounded(records: list[Record], make_record: Make, tables_of: Tables) -> None:
    tables = tables_of([*records, make_record(1 / 3, algorithm=f'{HOSTILE},"\n', cell="f" * 16, shot=20)])
    read = pd.read_csv(io.StringIO(render_csv(tables)))
    pd.testing.assert_frame_equal(plain(read), plain(frame(tables)))
    assert list(read["cell"]) == [16 * letter for letter in "cadbef"]
    assert read["accuracy"].iloc[-1] == 1 / 3
    assert read["algorithm"].iloc[-1] == f'{HOSTILE},"\\n'
    assert read["versus_best"].iloc[1] == pytest.approx(-0.4)
    broken = read[read["cell"] == "b" * 16].iloc[0]
    assert (broken["status"], broken["error"]) == ("failed", "it broke")
    assert np.isnan(broken["accuracy"])


def test_json_is_the_records_in_order_with_their_places(records: list[Record], tables_of: Tables) -> None:
    found = json.loads(render_json(tables_of(records)))
    names = set(Record.model_fields)
    read = [Record.model_validate({key: entry[key] for key in names}) for entry in found]
    assert [record.algorithm for record in read] == ["best", "middling", "worst", "broken", "alone"]
    assert sorted(read, key=str) == sorted(records, key=str)
    assert [entry["rank"] for entry in found] == [1, 2, 3, None, 1]
    assert found[1]["versus_best"]["difference"] == pytest.approx(-0.4)


@pytest.mark.parametrize("key", SORT_KEYS)
def test_sorting_keeps_the_ranks_and_the_unfinished_last(key: str, records: list[Record], tables_of: Tables) -> None:
    table = sort_tables(tables_of(records), key)[0]
    assert {row.name: row.rank for row in table.rows} == {"best": 1, "middling": 2, "worst": 3, "broken": None}
    assert table.rows[-1].name == "broken"


def test_the_validation_accuracy_of_the_tested_weights_is_shown_and_sorted_by(
    make_record: Make, tables_of: Tables
) -> None:
    def validated(name: str, *curve: float, best_step: int) -> Record:
        points = [{"step": 5 * (i + 1), "accuracy": accuracy} for i, accuracy in enumerate(curve)]
        train = make_record().model_dump()["train"] | {"validation": points, "best_step": best_step}
        return make_record(0.5 if name == "low" else 0.6, algorithm=name, cell=name, train=train)

    records = [validated("low", 0.7, 0.9, 0.8, best_step=10), validated("high", 0.85, 0.6, best_step=5)]
    tables = sort_tables(tables_of(records), "validation")
    assert [row.name for row in tables[0].rows] == ["low", "high"]
    text = render_text(tables)
    assert re.search(r"low .* 90\.00 ", text)
    assert re.search(r"high .* 85\.00 ", text)
    assert [entry["validation"] for _, entry in frame(tables).iterrows()] == [0.9, 0.85]


# ----------------------------------------------------------------------------------------------- command


@pytest.fixture
def printed(
    tmp_path: Path,
    records: list[Record],
    make_results: Callable[..., EpisodeResults],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Return a function that returns what `metabench leaderboard` prints of the records, stored in two runs."""
    for i, record in enumerate(records):
        accuracy = record.primary
        results = None if accuracy is None else make_results(accuracy.value)
        Store(tmp_path / ("one" if i < 2 else "two")).write(record, results)

    def run(*arguments: str, code: int = 0) -> str:
        folders = [str(tmp_path / "one"), str(tmp_path / "two")]
        monkeypatch.setattr(sys, "argv", ["metabench", "leaderboard", *folders, *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
        out, err = capsys.readouterr()
        return err if code else out

    return run


def test_the_command_prints_runs_as_one(printed: Callable[..., str], records: list[Record], tables_of: Tables) -> None:
    tables = tables_of(records)
    assert printed().strip() == render_text(tables).strip()
    assert printed("--format", "markdown") == render_markdown(tables)
    assert printed("--format", "latex") == render_latex(tables)
    assert printed("--format", "html") == render_html(tables)
    assert printed("--format", "csv") == render_csv(tables)
    assert printed("--format", "json") == render_json(tables)


def test_the_command_filters_and_sorts(printed: Callable[..., str]) -> None:
    text = printed("--only", "algorithm=best,worst", "--only", "shot=1", "--sort", "algorithm")
    assert "middling" not in text
    assert "5-shot" not in text
    assert "did you mean 'best'?" in printed("--only", "algorithm=bets", code=2)
    assert "unknown filter" in printed("--only", "colour=red", code=2)
    assert "matches all of these filters" in printed("--only", "algorithm=best", "--only", "shot=5", code=2)


def test_every_sort_key_is_an_option() -> None:
    assert all(key in SORTS for key in SORT_KEYS)


def test_a_failed_run_hides_no_good_one_and_another_machine_no_other(
    printed: Callable[..., str], tmp_path: Path, make_record: Make, make_results: Callable[..., EpisodeResults]
) -> None:
    failed = make_record(None, algorithm="middling", cell="a" * 16, finished="2025-02-01T00:00:00+00:00")
    Store(tmp_path / "two").write(failed)
    assert "failed" not in printed("--only", "algorithm=middling")
    elsewhere = make_record(0.6, algorithm="middling", cell="a" * 16, device="Another machine")
    Store(tmp_path / "two").write(elsewhere, make_results(0.6))
    text = printed("--only", "algorithm=middling")
    assert "middling (Another machine)" in text
    assert "middling (A processor, 2 threads)" in text


def test_a_run_of_which_the_episodes_are_gone_says_what_to_do(printed: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "one" / "cells" / f"{'a' * 16}.npz").unlink()
    message = printed(code=1)
    assert f"{'a' * 16}.npz" in message
    assert "run the suite again" in message


def test_of_a_cell_in_two_runs_the_later_counts(
    printed: Callable[..., str], tmp_path: Path, make_record: Make, make_results: Callable[..., EpisodeResults]
) -> None:
    later = make_record(0.95, algorithm="middling", cell="a" * 16, finished="2025-02-01T00:00:00+00:00")
    Store(tmp_path / "two").write(later, make_results(0.95))
    text = printed("--only", "algorithm=middling")
    assert "95.00 ± 1.00" in text
    assert "50.00" not in text
