from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kept_results import KeptResults
from metabench.analysis.published import compare_published
from metabench.analysis.standings import make_tables
from metabench.analysis.stats import DataIntervals, mean_interval
from metabench.analysis.tables import Row
from metabench.planning.cells import Cell
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import read_suite, resolve
from metabench.records.record import EpisodeResults, Record
from metabench.registry.manager import PluginManager
from metabench.specs import PublishedResult

Make = Callable[..., Record]
Results = Callable[..., EpisodeResults]


def rows_of(records: list[Record], results: dict[str, EpisodeResults]) -> list[Row]:
    (table,) = make_tables(records, KeptResults(lambda record: results[record.cell]))
    return list(table.rows)


def test_the_most_accurate_is_first_and_the_failed_last(make_record: Make, make_results: Results) -> None:
    means = {"a": 0.5, "b": None, "c": 0.9, "d": 0.0}
    records = [make_record(mean, algorithm=name, cell=name) for name, mean in means.items()]
    results = {name: make_results(mean) for name, mean in means.items() if mean is not None}
    rows = rows_of(records, results)
    assert [(row.name, row.rank) for row in rows] == [("c", 1), ("a", 2), ("d", 3), ("b", None)]
    assert [row.name for row in rows_of(records[::-1], results)] == ["c", "a", "d", "b"]


def test_seeds_are_averaged_episode_by_episode(make_record: Make, make_results: Results) -> None:
    results = {str(seed): make_results(0.5 + 0.1 * seed, noise=seed) for seed in range(3)}
    records = [make_record(0.5 + 0.1 * seed, seed=seed, cell=str(seed)) for seed in range(3)]
    (row,) = rows_of(records, results)
    mean = np.mean([result.figures["accuracy"] for result in results.values()], axis=0)
    assert row.primary == mean_interval(mean)
    assert row.data_ci95 == DataIntervals(results["0"].groups).ci95(mean)
    assert row.seed_ci95 == pytest.approx(mean_interval([0.5, 0.6, 0.7]).ci95)


def of_seeds(make_record: Make, results: dict[str, EpisodeResults], transductive: bool) -> list[Record]:
    records = []
    for seed, (cell, result) in enumerate(results.items()):
        alone = result.alone if transductive else result.figures["accuracy"]
        summary = vars(mean_interval(result.figures["accuracy"]))
        records.append(
            make_record(
                cell=cell,
                seed=seed,
                transductive=transductive,
                accuracy=summary,
                inductive_accuracy=summary if alone is None else vars(mean_interval(alone)),
            )
        )
    return records


def test_accuracy_and_alone_of_an_inductive_method_have_one_interval(make_record: Make, make_results: Results) -> None:
    results = {str(seed): make_results(0.5 + 0.1 * seed, noise=seed) for seed in range(3)}
    (row,) = rows_of(of_seeds(make_record, results, transductive=False), results)
    assert row.primary is not None
    assert (row.inductive, row.inductive_ci95) == (row.primary.mean, row.primary.ci95)


def test_alone_of_several_seeds_is_averaged_episode_by_episode(make_record: Make, make_results: Results) -> None:
    generator = np.random.default_rng(0)
    results = {
        str(seed): replace(make_results(0.6, noise=seed), alone=generator.integers(0, 6, 20) / 5) for seed in range(3)
    }
    (row,) = rows_of(of_seeds(make_record, results, transductive=True), results)
    expected = mean_interval(np.mean([result.alone for result in results.values()], axis=0))
    assert (row.inductive, row.inductive_ci95) == (expected.mean, expected.ci95)
    apart = [mean_interval(result.alone).ci95 for result in results.values() if result.alone is not None]
    assert row.inductive_ci95 < np.mean(apart), "three seeds know more than one"


def test_seeds_of_which_some_are_transductive_share_the_first_episodes(
    make_record: Make, make_results: Results
) -> None:
    one, two = make_results(0.6, noise=1), replace(make_results(0.6, noise=2), alone=np.linspace(0, 1, 20))
    records = [
        of_seeds(make_record, {"one": one}, transductive=False)[0],
        of_seeds(make_record, {"two": two}, transductive=True)[0].model_copy(update={"seed": 1}),
    ]
    (row,) = rows_of(records, {"one": one, "two": two})
    assert two.alone is not None
    expected = mean_interval((one.figures["accuracy"][:20] + two.alone) / 2)
    assert (row.inductive, row.inductive_ci95) == (expected.mean, expected.ci95)


def test_without_accuracies_of_episodes_the_intervals_of_seeds_are_averaged(
    make_record: Make, make_results: Results
) -> None:
    """Records of earlier versions have the means only."""
    results = {str(seed): replace(make_results(0.6), alone=np.linspace(0, 1 - seed / 2, 20)) for seed in range(2)}
    records = of_seeds(make_record, results, transductive=True)
    earlier = {cell: replace(result, alone=None) for cell, result in results.items()}
    (row,) = rows_of(records, earlier)
    ci95 = [record.inductive_accuracy.ci95 for record in records if record.inductive_accuracy]
    assert row.inductive == pytest.approx((0.5 + 0.25) / 2)
    assert row.inductive_ci95 == pytest.approx(np.mean(ci95))


def test_a_seed_that_failed_is_left_out_of_the_mean(make_record: Make, make_results: Results) -> None:
    records = [make_record(0.5, seed=0, cell="a"), make_record(None, seed=1, cell="b")]
    (row,) = rows_of(records, {"a": make_results(0.5)})
    assert row.primary is not None
    assert row.primary.mean == pytest.approx(0.5)
    assert [record.cell for record in row.finished] == ["a"]
    assert row.seed_ci95 is None


def test_other_parameters_are_another_row(make_record: Make, make_results: Results) -> None:
    records = [make_record(0.5, cell=name, identity={"params": name}) for name in "ab"]
    assert len(rows_of(records, {name: make_results(0.5) for name in "ab"})) == 2


def of_episodes(number: int) -> dict[str, Any]:
    return {"mean": 0.7, "ci95": 0.01, "std": 0.1, "episodes": number}


def test_methods_are_compared_on_the_same_episodes_only(make_record: Make, make_results: Results) -> None:
    records = [
        make_record(0.9, algorithm="best", cell="a"),
        make_record(0.8, algorithm="same", cell="b"),
        make_record(0.7, algorithm="fewer", cell="c", accuracy=of_episodes(50)),
        make_record(0.6, algorithm="other", cell="d", identity={"test": {"seed": 7}}),
        make_record(0.5, algorithm="data", cell="e", dataset_fingerprint="0" * 64),
    ]
    results = {record.cell: make_results(record.primary and record.primary.value) for record in records}
    results["c"] = make_results(0.7, episodes=50)
    rows = rows_of(records, results)
    compared = {row.name: row.versus_best is not None for row in rows}
    assert compared == {"best": False, "same": True, "fewer": True, "other": False, "data": False}
    assert [(row.name, row.rank) for row in rows] == [
        ("best", 1),
        ("same", 2),
        ("fewer", 3),
        ("other", None),
        ("data", None),
    ]


def test_the_key_of_the_episodes_decides_whatever_the_parameters_of_the_dataset(
    make_record: Make, make_results: Results
) -> None:
    def record(name: str, key: str, root: str, fingerprint: str = "f") -> Record:
        dataset = {"label": "mine", "name": f"{root}/mine.py:Mine", "params": {"root": root}}
        data = {"episodes": key, "raw_files": 1}
        identity = {"dataset": dataset, "algorithm": name}
        return make_record(
            0.5, algorithm=name, cell=name, identity=identity, data=data, dataset_fingerprint=fingerprint
        )

    records = [record("a", "same", "/one"), record("b", "same", "/two", "e"), record("c", "other", "/one")]
    rows = rows_of(records, {name: make_results(0.5, noise=seed) for seed, name in enumerate("abc")})
    assert sorted((row.name, row.rank is None) for row in rows) == [("a", False), ("b", False), ("c", True)]


def test_seeds_tested_on_other_episodes_are_another_row(make_record: Make, make_results: Results) -> None:
    keys = (
        None,
        {"episodes": "a", "raw_files": 0},
        {"episodes": "a", "raw_files": 0},
        {"episodes": "b", "raw_files": 0},
    )
    records = [make_record(0.5, seed=seed, cell=str(seed), data=data) for seed, data in enumerate(keys)]
    rows = rows_of(records, {str(seed): make_results(0.5) for seed in range(4)})
    assert sorted([record.seed for record in row.records] for row in rows) == [[0], [1, 2], [3]]


def test_methods_on_other_episodes_than_most_have_no_rank(make_record: Make, make_results: Results) -> None:
    records = [
        make_record(algorithm="odd", cell="odd", accuracy=of_episodes(50), identity={"test": {"seed": 7}}),
        make_record(algorithm="one", cell="one"),
        make_record(algorithm="two", cell="two"),
    ]
    results = {"odd": make_results(0.9, episodes=50), "one": make_results(0.8), "two": make_results(0.7)}
    assert [(row.name, row.rank) for row in rows_of(records, results)] == [("one", 1), ("two", 2), ("odd", None)]


def test_ranks_and_comparisons_use_the_first_episodes_that_all_have(make_record: Make, make_results: Results) -> None:
    grown, few = make_results(0.9, episodes=200), make_results(0.8, episodes=100)
    grown.figures["accuracy"][:100] -= 0.2  # the later episodes alone make it the better one
    records = [
        make_record(algorithm="grown", cell="grown", accuracy=of_episodes(200)),
        make_record(algorithm="few", cell="few", accuracy=of_episodes(100)),
    ]
    best, other = rows_of(records, {"grown": grown, "few": few})
    assert [(row.name, row.rank) for row in (best, other)] == [("few", 1), ("grown", 2)]
    assert other.versus_best is not None
    assert other.versus_best.difference == pytest.approx(-0.1)
    assert other.primary is not None
    assert (other.primary.mean, other.primary.episodes) == (pytest.approx(0.8), 200), (
        "the value is that of all episodes"
    )


def test_seeds_of_different_numbers_of_episodes_share_the_first(make_record: Make, make_results: Results) -> None:
    records = [make_record(seed=seed, cell=str(seed), accuracy=of_episodes(50 * (seed + 1))) for seed in range(2)]
    (row,) = rows_of(records, {"0": make_results(0.5, episodes=50), "1": make_results(0.7, episodes=100)})
    assert row.primary is not None
    assert row.primary.episodes == 50
    assert row.data_ci95 is not None


def test_machines_are_not_mixed_in_one_row(make_record: Make, make_results: Results) -> None:
    records = [make_record(0.5, seed=i, cell=str(i), device=f"machine {i}") for i in range(2)]
    rows = rows_of(records, {str(i): make_results(0.5) for i in range(2)})
    assert [row.name for row in rows] == ["one (machine 0)", "one (machine 1)"]


def test_methods_of_the_same_name_show_what_differs(make_record: Make, make_results: Results) -> None:
    records = [
        make_record(0.5, cell=name, profile=name, identity={"train": name}, algorithm="maml") for name in ("a", "b")
    ]
    rows = rows_of([*records, make_record(0.4, cell="c")], {name: make_results(0.5) for name in "abc"})
    assert [row.name for row in rows] == ["maml (a)", "maml (b)", "one"]
    same = [make_record(0.5, cell=name, identity={"train": name}) for name in ("a", "b")]
    assert [row.name for row in rows_of(same, {name: make_results(0.5) for name in "ab"})] == ["one (a)", "one (b)"]


def test_a_tie_with_the_best_shares_its_rank(make_record: Make, make_results: Results) -> None:
    records = [make_record(0.9 - 0.0001 * i, algorithm=f"m{i}", cell=str(i)) for i in range(3)]
    results = {str(i): make_results(0.9 - 0.0001 * i, noise=i) for i in range(3)}
    assert [(row.rank, row.tie) for row in rows_of(records, results)] == [(1, False), (1, True), (1, True)]


def test_every_pair_of_ranked_methods_has_an_adjusted_p(make_record: Make, make_results: Results) -> None:
    records = [make_record(0.9 - 0.1 * i, algorithm=f"m{i}", cell=str(i)) for i in range(3)]
    odd = make_record(algorithm="odd", cell="odd", accuracy=of_episodes(50), identity={"test": {"seed": 7}})
    results = {str(i): make_results(0.9 - 0.1 * i, noise=i) for i in range(3)}
    rows = rows_of([*records, odd], {**results, "odd": make_results(0.9, episodes=50)})
    assert [set(row.p_holm) for row in rows] == [{"m1", "m2"}, {"m0", "m2"}, {"m0", "m1"}, set()]
    assert rows[1].versus_best is not None
    assert rows[1].p_holm["m0"] == rows[0].p_holm["m1"] == rows[1].versus_best.p_holm


# --------------------------------------------------------------------------------------------- published

IDENTITY = {
    "algorithm": {"name": "maml", "params": {"first_order": False}},
    "dataset": {"name": "omniglot"},
    "train": {"steps": 10},
}


def published_result(**changes: object) -> PublishedResult:
    usual = {"algorithm": "maml", "dataset": "omniglot", "way": 5, "shot": 1, "accuracy": 0.987, "source": "Doe"}
    return PublishedResult(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "reptile"},
        {"dataset": "glyphs"},
        {"way": 20},
        {"shot": 5},
        {"variant": {"algorithm.params.first_order": True}},
        {"variant": {"algorithm.params.missing": 1}},
    ],
)
def test_a_result_about_something_else_is_not_shown(make_record: Make, changes: dict[str, object]) -> None:
    assert compare_published(make_record(identity=IDENTITY), [published_result(**changes)]) is None


def test_the_result_with_the_nearest_protocol_is_shown(make_record: Make) -> None:
    far = published_result(protocol={"train.steps": 60000, "train.meta_batch": 32})
    near = published_result(
        protocol={"train.steps": 10}, variant={"algorithm.params.first_order": False}, notes=["other split"]
    )
    comparison = compare_published(make_record(identity=IDENTITY), [far, near])
    assert comparison is not None
    assert comparison.result == near
    assert comparison.differences == ("other split",)
    assert not comparison.same_protocol


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": 98.7},
        {"accuracy": "0.987"},
        {"ci95": 0.4 * 100},
        {"protocol": None},
        {"link": None},
        {"variant": []},
    ],
)
def test_a_result_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))} of a published result must be "):
        published_result(**changes)


def paths(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{key}.")


def reference_cells(suite: str, plugins: PluginManager) -> list[Cell]:
    return make_plan(*resolve(read_suite(plugins.suite_path(suite)), ""), plugins)


@pytest.mark.parametrize(
    ("suite", "differences"),
    [
        ("omniglot-reference-maml", {"maml": []}),
        ("omniglot-reference-reptile", {"reptile": [], "reptile-inductive": []}),
        (
            "omniglot-reference",
            {
                "protonet": ["trained again on train and validation classes together"],
                "matchingnet": ["algorithm.params.scale: 1.0 there, 10.0 here"],
                "siamese": ["Koch's larger network and images of 105 pixels", "its protocol is not described"],
            },
        ),
    ],
)
def test_reference_suites_have_the_published_protocols(
    suite: str, differences: dict[str, list[str]], plugins: PluginManager, make_record: Make
) -> None:
    for cell in reference_cells(suite, plugins):
        accuracy = {"mean": 0.9, "ci95": 0.01, "std": 0.1, "episodes": cell.test.episodes}
        labels = {"algorithm": cell.algorithm.label, "dataset": "omniglot", "way": cell.shape.way}
        record = make_record(accuracy=accuracy, identity=cell.identity, shot=cell.shape.shot, **labels)
        found = compare_published(record, plugins.published_results())
        assert found is not None
        assert list(found.differences) == differences[cell.algorithm.label]


def test_every_built_in_result_is_a_fraction_with_a_source(plugins: PluginManager) -> None:
    results = plugins.published_results()
    known = {"test.episodes"}
    for name in (
        "omniglot",
        "miniimagenet",
        "tieredimagenet",
        "cifarfs",
        "fc100",
        "cross-char",
        "cross-domain",
        "heads",
    ):
        cells = make_plan(*resolve(read_suite(plugins.suite_path(name)), "paper"), plugins)
        known |= {path for cell in cells for path in paths(cell.identity)}
    for cell in reference_cells("omniglot-reference-maml", plugins):
        known |= set(paths(cell.identity))
    of_omniglot = [entry for entry in results if entry.dataset == "omniglot"]
    assert {entry.algorithm for entry in of_omniglot} == {"maml", "reptile", "protonet", "matchingnet", "siamese"}
    for entry in results:
        assert (0.5 if entry.dataset == "omniglot" else 0.3) < entry.accuracy < 1
        assert entry.ci95 is None or 0 < entry.ci95 < 0.02
        assert entry.source
        assert entry.link.startswith("https://")
    for entry in results:
        assert set(entry.protocol) | set(entry.variant) <= known, "a setting that no cell has"
    keys = [(e.dataset, e.algorithm, e.way, e.shot, str(e.variant)) for e in results]
    assert len(keys) == len(set(keys)) == 106
    assert len(of_omniglot) == 28
