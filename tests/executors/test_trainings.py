"""Weights that several tests, algorithms, suites and runs share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metabench.engine.progress import Interrupted
from metabench.errors import StoreError, SuiteError
from metabench.records.record import Record
from metabench.records.store import Store
from tiny import Watching

pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies")

RunSuite = Callable[..., list[Record]]

BASE = """\
name: tiny
datasets: {blots: {}}
backbones: {conv4: {params: {channels: 4, norm: batch}}}
ways: [3]
shots: [2]
queries: 4
train: {steps: 7, meta_batch: 2, shot: 2, queries: 4, validate_every: 3, validation_episodes: 5}
eval: {episodes: 12, batch: 5}
algorithms: ALGORITHMS
"""


def suite(algorithms: str, *changes: tuple[str, str]) -> str:
    text = BASE.replace("ALGORITHMS", algorithms)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def accuracies(tmp_path: Path, record: Record, output: str = "out") -> list[float]:
    assert record.status == "ok", record.error
    return Store(tmp_path / output).episodes(record).figures["accuracy"].tolist()


def trainings(watcher: Watching) -> int:
    """Return the number of trainings that a run began."""
    return sum(1 for name, _, done in watcher.phases if name == "train" and done == 0)


# ------------------------------------------------------------------------------------------- weights of a label


def test_several_algorithms_are_tested_on_weights_that_are_trained_once(run_suite: RunSuite, tmp_path: Path) -> None:
    watcher = Watching()
    heads = "{protonet: {}, same: {use: protonet, weights: protonet}, matching: {use: matchingnet, weights: protonet}}"
    protonet, same, matching = run_suite(suite(heads), watcher=watcher)
    assert trainings(watcher) == 1
    assert accuracies(tmp_path, same) == accuracies(tmp_path, protonet) != accuracies(tmp_path, matching)
    assert protonet.weights == same.weights == matching.weights
    assert protonet.train == matching.train
    assert (protonet.identity.get("weights"), same.identity["weights"]) == (None, matching.identity["weights"])


def test_a_head_trains_nothing_where_the_weights_are_kept(run_suite: RunSuite, tmp_path: Path) -> None:
    (protonet,) = run_suite(suite("{protonet: {}}"))
    watcher = Watching()
    text = suite("{protonet: {}, same: {use: protonet, weights: protonet}}")
    (same,) = run_suite(text, watcher=watcher, only=["same"])
    assert trainings(watcher) == 0
    assert accuracies(tmp_path, same) == accuracies(tmp_path, protonet)


def test_only_a_head_trains_what_it_needs(run_suite: RunSuite, tmp_path: Path) -> None:
    watcher = Watching()
    text = suite("{protonet: {}, same: {use: protonet, weights: protonet}}")
    (same,) = run_suite(text, watcher=watcher, only=["same"])
    assert (trainings(watcher), watcher.started) == (1, ["same"])
    (protonet,) = run_suite(text, output="other", only=["protonet"])
    assert accuracies(tmp_path, same) == accuracies(tmp_path, protonet, "other")


def test_weights_that_do_not_fit_fail_the_head_alone(run_suite: RunSuite) -> None:
    protonet, head = run_suite(suite("{protonet: {}, pixel: {use: maml, weights: protonet}}"))
    assert (protonet.status, head.status) == ("ok", "ok"), "MAML's own layer stays as it was drawn"


# ------------------------------------------------------------------------------------------ weights of a file


def kept_file(tmp_path: Path, output: str = "out") -> Path:
    (path,) = (tmp_path / output / "weights").glob("*-3way-2shot-4queries.safetensors")
    return path


def test_weights_of_a_file_are_tested_without_training(run_suite: RunSuite, tmp_path: Path) -> None:
    (protonet,) = run_suite(suite("{protonet: {}}"))
    text = suite(
        f"{{loaded: {{use: protonet, weights: {kept_file(tmp_path)}}}}}", ("train: {steps: 7,", "train: {steps: 9,")
    )
    watcher = Watching()
    (loaded,) = run_suite(text, watcher=watcher, output="other")
    assert trainings(watcher) == 0
    assert accuracies(tmp_path, loaded, "other") == accuracies(tmp_path, protonet)
    assert (loaded.train, loaded.weights) == (None, None)
    assert loaded.identity["init"] == protonet.weights.sha256 if protonet.weights else None


def test_seeds_make_one_cell_where_nothing_is_drawn(run_suite: RunSuite, tmp_path: Path) -> None:
    run_suite(suite("{protonet: {}}"))
    seeds = ("queries: 4\n", "queries: 4\nseeds: [3, 4]\n")
    text = suite(f"{{a: {{use: protonet, weights: {kept_file(tmp_path)}}}, b: {{use: protonet}}}}", seeds)
    records = run_suite(text, output="other")
    assert [(record.algorithm, record.seed) for record in records] == [("a", 3), ("b", 3), ("b", 4)]


def test_a_file_of_another_backbone_fails_its_cell(run_suite: RunSuite, tmp_path: Path) -> None:
    run_suite(suite("{protonet: {}}"))
    entry = f"{{wide: {{use: protonet, weights: {kept_file(tmp_path)}}}}}"
    (wide,) = run_suite(suite(entry, ("channels: 4", "channels: 5")), output="other")
    assert wide.status == "failed"
    assert wide.error is not None
    assert "do not fit the backbone, whose 'backbone.blocks.0" in wide.error
    assert wide.error.endswith("they have one of shape (4, 1, 3, 3)")


def test_a_file_that_is_no_weights_fails_its_cell(run_suite: RunSuite, tmp_path: Path) -> None:
    (tmp_path / "words.safetensors").write_text("words")
    (record,) = run_suite(suite(f"{{a: {{use: protonet, weights: {tmp_path / 'words.safetensors'}}}}}"))
    assert record.status == "failed"
    assert "is no file of weights" in str(record.error)


@pytest.mark.parametrize(
    ("algorithms", "message"),
    [
        (
            "{a: {use: protonet, weights: protonnet}, protonet: {}}",
            r":9: algorithms\.a\.weights: 'protonnet' is no algorithm of the suite, and no file",
        ),
        (
            "{a: {use: protonet, teacher: b.safetensors}}",
            r"algorithms\.a\.teacher: 'b.safetensors' is no algorithm of the suite",
        ),
        ("{a: {use: protonet, init: b}, b: {use: protonet, init: a}}", r"the weights come from themselves: a → b → a"),
        ("{a: {use: protonet, init: a}}", r"algorithms\.a\.init: the weights come from themselves: a → a"),
        (
            "{a: {use: protonet, weights: b}, b: {use: protonet, weights: c}, c: {use: protonet}}",
            r"algorithms\.a\.weights: 'b' is itself tested on weights of 'c': name that one",
        ),
        (
            "{a: {use: protonet, weights: b, train: {steps: 3}}, b: {use: protonet}}",
            r"algorithms\.a: with 'weights', nothing is trained: remove 'train'",
        ),
        ("{a: {use: protonet, weights: b, init: b}, b: {use: protonet}}", r"nothing is trained: remove 'init'"),
        ("{a: {use: protonet, train: no}}", r"algorithms\.a\.train: "),
    ],
)
def test_wrong_sources_are_reported_with_their_line(run_suite: RunSuite, algorithms: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        run_suite(suite(algorithms))


# ------------------------------------------------------------------------------------------ init and teacher


def test_a_training_starts_from_the_weights_of_another(run_suite: RunSuite, tmp_path: Path) -> None:
    still = "params: {lr: 1.0e-30}"
    entries = {"tuned": f"init: first, {still}", "first": "", "cold": still}
    text = suite("{" + ", ".join(f"{label}: {{use: protonet, {keys}}}" for label, keys in entries.items()) + "}")
    watcher = Watching()
    tuned, first, cold = run_suite(text, watcher=watcher)
    assert trainings(watcher) == 3
    assert accuracies(tmp_path, tuned) == accuracies(tmp_path, first) != accuracies(tmp_path, cold)
    assert watcher.started.index("first") < watcher.started.index("tuned"), "it waits for the weights"


def test_a_training_from_weights_that_failed_fails_with_the_reason(run_suite: RunSuite) -> None:
    records = run_suite(suite("{tuned: {use: protonet, init: bad}, bad: {use: diverging}}", ("steps: 7", "steps: 20")))
    assert [record.status for record in records] == ["failed", "failed"]
    assert records[0].error == "it needs the weights of 'bad', whose training has failed"


def test_only_a_tuned_algorithm_trains_the_first_one_without_testing_it(run_suite: RunSuite) -> None:
    watcher = Watching()
    text = suite("{tuned: {use: protonet, init: first}, first: {use: protonet}}")
    (tuned,) = run_suite(text, watcher=watcher, only=["tuned"])
    assert tuned.status == "ok"
    assert watcher.started == ["training of first", "tuned"]
    assert ("training of first", False) in watcher.done


def test_an_algorithm_learns_from_a_teacher(run_suite: RunSuite, tmp_path: Path) -> None:
    parrot, protonet = run_suite(suite("{parrot: {teacher: protonet}, protonet: {}}", ("norm: batch", "norm: running")))
    assert accuracies(tmp_path, parrot) == accuracies(tmp_path, protonet)


def test_nothing_is_trained_if_the_suite_says_so(run_suite: RunSuite, tmp_path: Path) -> None:
    watcher = Watching()
    text = suite("{untrained: {use: protonet, train: none}, protonet: {}}")
    untrained, protonet = run_suite(text, watcher=watcher)
    assert trainings(watcher) == 1
    assert untrained.train is untrained.weights is None
    assert accuracies(tmp_path, untrained) != accuracies(tmp_path, protonet)
    whole = text.replace(
        "train: {steps: 7, meta_batch: 2, shot: 2, queries: 4, validate_every: 3, validation_episodes: 5}",
        "train: none",
    )
    assert [record.train for record in run_suite(whole, output="other")] == [None, None]


# ------------------------------------------------------------------------------------- tests of one training


def test_test_time_parameters_share_a_training_and_select_each_their_weights(
    run_suite: RunSuite, tmp_path: Path
) -> None:
    grid = "{maml: {params: {inner_lr: 0.5, test_inner_steps: {grid: [0, 1, 3]}}}}"
    watcher = Watching()
    together = run_suite(suite(grid), watcher=watcher)
    assert trainings(watcher) == 1
    assert len({record.cell for record in together}) == len(together) == 3
    for record, steps in zip(together, (0, 1, 3), strict=True):
        (alone,) = run_suite(suite(grid.replace("{grid: [0, 1, 3]}", str(steps))), output=f"alone {steps}")
        assert accuracies(tmp_path, record) == accuracies(tmp_path, alone, f"alone {steps}")
        assert record.train is not None
        assert alone.train is not None
        assert record.train.validation == alone.train.validation


def test_one_training_serves_all_ways(run_suite: RunSuite, tmp_path: Path) -> None:
    watcher = Watching()
    ways = (("ways: [3]", "ways: [2, 3]"), ("shot: 2,", "way: 4, shot: 2,"))
    two, three = run_suite(suite("{protonet: {}}", *ways), watcher=watcher)
    assert trainings(watcher) == 1
    assert (two.way, three.way) == (2, 3)
    (alone,) = run_suite(suite("{protonet: {}}", ways[1]), output="alone")
    assert accuracies(tmp_path, three) == accuracies(tmp_path, alone, "alone")


@pytest.mark.parametrize(
    "change",
    [
        ("{episodes: 12, batch: 5}", "{episodes: 12, batch: 3}"),
        ("{episodes: 12, batch: 5}", "{episodes: 12, batch: 5, seed: 1}"),
        ("{episodes: 12, batch: 5}", "{episodes: 30, batch: 5}"),
        ("{episodes: 12, batch: 5}", "{episodes: 12, inductive_episodes: 3}"),
    ],
)
def test_no_change_of_the_test_trains_again(run_suite: RunSuite, change: tuple[str, str]) -> None:
    run_suite(suite("{protonet: {}, reptile: {params: {inner_steps: 2}}}"))
    watcher = Watching()
    run_suite(suite("{protonet: {}, reptile: {params: {inner_steps: 2}}}", change), watcher=watcher)
    assert trainings(watcher) == 0


def test_a_later_selection_takes_the_nearest_kept_weights_and_says_so(run_suite: RunSuite, tmp_path: Path) -> None:
    run_suite(suite("{protonet: {}}", ("shots: [2]", "shots: [2, 4]")))
    watcher = Watching()
    more = suite("{protonet: {}}", ("shots: [2]", "shots: [1, 2, 3, 4]"))
    one, two, three, four = run_suite(more, watcher=watcher)
    assert trainings(watcher) == 0
    selected = [record.weights.selected_for if record.weights else None for record in (one, two, three, four)]
    assert selected == ["3-way 2-shot, 4 queries", "", "3-way 2-shot, 4 queries", ""]
    watcher = Watching()
    run_suite(more.replace("shots: [1,", "shots: [5,"), watcher=watcher, reselect=True, shots=[2, 3, 4])
    assert trainings(watcher) == 0, "the records are kept"


def test_reselect_trains_again_for_a_later_selection(run_suite: RunSuite, tmp_path: Path) -> None:
    run_suite(suite("{protonet: {}}"))
    more = suite("{protonet: {}}", ("shots: [2]", "shots: [1, 2]"))
    watcher = Watching()
    one, _ = run_suite(more, watcher=watcher, reselect=True)
    assert trainings(watcher) == 1
    assert one.weights is not None
    assert one.weights.selected_for == ""
    fresh, _ = run_suite(more, output="fresh")
    assert accuracies(tmp_path, one) == accuracies(tmp_path, fresh, "fresh")


# -------------------------------------------------------------------------------------------- growing records


@pytest.mark.parametrize("name", ["protonet", "siamese", "maml", "reptile", "matchingnet"])
def test_a_grown_record_is_that_of_a_fresh_run(run_suite: RunSuite, tmp_path: Path, name: str) -> None:
    few = suite(f"{{{name}: {{}}}}")
    many = few.replace("episodes: 12", "episodes: 31, inductive_episodes: 14")
    (before,) = run_suite(few)
    first = accuracies(tmp_path, before)
    watcher = Watching()
    (grown,) = run_suite(many, watcher=watcher)
    (fresh,) = run_suite(many, output="fresh")
    assert trainings(watcher) == 0
    assert watcher.phases[:2] == [("calibrate", 5, 0), ("test", 31, 12)], "the first 12 episodes are not tested again"
    assert accuracies(tmp_path, grown)[:12] == first
    assert accuracies(tmp_path, grown) == accuracies(tmp_path, fresh, "fresh")
    assert (grown.primary, grown.inductive_accuracy) == (fresh.primary, fresh.inductive_accuracy)
    assert grown.temperature == fresh.temperature
    for metric, estimate in fresh.metrics.items():
        assert estimate is not None
        again = grown.metrics[metric]
        assert again is not None
        # Figures of pooled metrics are stored in float32.
        assert (again.value, again.ci95) == pytest.approx((estimate.value, estimate.ci95), rel=1e-5), metric
    outputs, of_fresh = (Store(tmp_path / output).outputs(grown.cell) for output in ("out", "fresh"))
    assert outputs is not None
    assert of_fresh is not None
    for one, other in zip(vars(outputs).values(), vars(of_fresh).values(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (grown.cell, grown.worst_classes) == (fresh.cell, fresh.worst_classes)
    assert Store(tmp_path / "out").records() == [grown]


def test_fewer_episodes_keep_the_longer_record(run_suite: RunSuite) -> None:
    (record,) = run_suite(suite("{protonet: {}}"))
    watcher = Watching()
    assert run_suite(suite("{protonet: {}}", ("episodes: 12", "episodes: 4")), watcher=watcher) == [record]
    assert watcher.done == [("protonet", True)]


def test_a_test_grows_until_its_interval_is_narrow(run_suite: RunSuite) -> None:
    def episodes(ci95: float, output: str) -> int:
        until = ("episodes: 12,", f"episodes: 12, until: {{ci95: {ci95}, at_most: 100}},")
        (record,) = run_suite(suite("{protonet: {}}", until), output=output)
        assert record.primary is not None
        assert (record.primary.ci95 <= ci95) != (record.primary.episodes == 100 and ci95 < 0.01)
        return record.primary.episodes

    wide, narrow = episodes(0.5, "wide"), episodes(0.05, "narrow")
    assert wide == 12 < narrow < 100
    assert narrow % 12 == 0
    assert episodes(0.0001, "never") == 100
    assert episodes(0.05, "wide") == narrow, "a grown test ends where a fresh one does"


def test_growing_without_kept_weights_is_refused(run_suite: RunSuite, tmp_path: Path) -> None:
    (record,) = run_suite(suite("{protonet: {}}"), keep_weights=False)
    assert not list((tmp_path / "out" / "weights").iterdir())
    with pytest.raises(StoreError, match=r"has 12 test episodes, more are asked for.*not been kept.*--fresh"):
        run_suite(suite("{protonet: {}}", ("episodes: 12", "episodes: 20")))
    assert Store(tmp_path / "out").records() == [record]


def test_what_is_not_trained_grows_without_weights(run_suite: RunSuite, tmp_path: Path) -> None:
    text = suite("{a: {use: protonet, train: none}}")
    run_suite(text)
    (grown,) = run_suite(text.replace("episodes: 12", "episodes: 20"))
    assert len(accuracies(tmp_path, grown)) == 20


def test_an_interrupted_growth_leaves_the_shorter_record(run_suite: RunSuite, tmp_path: Path) -> None:
    (record,) = run_suite(suite("{protonet: {}}"))
    with pytest.raises(Interrupted):
        run_suite(suite("{protonet: {}}", ("episodes: 12", "episodes: 60")), watcher=Watching("test", 20))
    assert Store(tmp_path / "out").records() == [record]
    assert len(accuracies(tmp_path, record)) == 12


# --------------------------------------------------------------------------------------------- kept weights


def test_weights_are_kept_with_their_hash_and_validation(run_suite: RunSuite, tmp_path: Path) -> None:
    (record,) = run_suite(suite("{protonet: {}}"))
    assert record.weights is not None
    assert record.train is not None
    names = sorted(path.name for path in (tmp_path / "out" / "weights").iterdir())
    training = names[0].partition("-")[0]
    assert record.weights.file in names
    summary = json.loads((tmp_path / "out" / "weights" / f"{training}.json").read_text())
    snapshot = summary["snapshots"]["3way-2shot-4queries"]
    assert (snapshot["step"], snapshot["sha256"]) == (record.train.best_step, record.weights.sha256)
    assert [point["step"] for point in snapshot["validation"]] == [3, 6, 7]
    assert summary["snapshots"]["last"]["step"] == 7


def test_without_kept_weights_other_trainings_still_get_theirs(run_suite: RunSuite, tmp_path: Path) -> None:
    text = suite("{tuned: {use: protonet, init: first}, first: {use: protonet}}")
    assert [record.status for record in run_suite(text, keep_weights=False)] == ["ok", "ok"]
    assert not list((tmp_path / "out" / "weights").iterdir())


def test_changed_weights_are_not_used(run_suite: RunSuite, tmp_path: Path) -> None:
    run_suite(suite("{protonet: {}}"))
    path = kept_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"have changed since they were written: .*--fresh"):
        run_suite(suite("{protonet: {}}", ("episodes: 12", "episodes: 20")))


def test_a_damaged_summary_is_named_with_advice(run_suite: RunSuite, tmp_path: Path) -> None:
    run_suite(suite("{protonet: {}}"))
    (summary,) = (tmp_path / "out" / "weights").glob("*.json")
    summary.write_text("{")
    with pytest.raises(StoreError, match=r"is damaged: delete it.*--fresh"):
        run_suite(suite("{protonet: {}}", ("episodes: 12", "episodes: 20")))


def test_a_state_that_is_no_tensor_fails_with_advice(run_suite: RunSuite) -> None:
    (record,) = run_suite(suite("{talkative: {}}"))
    assert record.status == "failed"
    assert "'_extra_state', which is no tensor: make it a parameter or a buffer" in str(record.error)


# ------------------------------------------------------------------------------------------------- budgets


def test_a_training_ends_when_its_patience_does(run_suite: RunSuite) -> None:
    patient = (("steps: 7", "steps: 40"), ("validate_every: 3", "validate_every: 2, patience: 3"))
    (record,) = run_suite(suite("{fading: {}}", *patient))
    assert record.error is None
    assert record.train is not None
    # Right until step 4; validations at steps 6, 8 and 10 are worse.
    assert (record.train.best_step, record.train.steps) == (4, 10)
    assert not record.train.timed


def test_a_training_ends_when_its_seconds_are_spent_and_is_marked(run_suite: RunSuite) -> None:
    timed = (("steps: 7", "steps: 100000, seconds: 0.05"), ("validate_every: 3", "validate_every: 100000"))
    (record,) = run_suite(suite("{centroid: {}}", *timed))
    assert record.train is not None
    assert record.train.timed
    assert 0.05 <= record.train.seconds < 5
    assert record.train.steps < 100000
    assert [point.step for point in record.train.validation] == [record.train.steps]


def test_a_training_over_its_time_limit_fails_its_cells(run_suite: RunSuite) -> None:
    limit = ("steps: 7", "steps: 100000, time_limit: 0.02")
    slow, quick = run_suite(suite("{centroid: {}, relative: {train: {steps: 4}}}", limit))
    assert (slow.status, quick.status) == ("failed", "ok")
    assert str(slow.error).startswith("the training took longer than its time_limit of 0.02 s: step ")


def test_a_test_over_its_time_limit_fails_its_cell(run_suite: RunSuite) -> None:
    (record,) = run_suite(suite("{centroid: {}}", ("episodes: 12", "episodes: 100000, time_limit: 0.05")))
    assert record.status == "failed"
    assert record.error == "the test took longer than its time_limit of 0.05 s"


def test_the_interval_of_a_grown_record_is_that_of_all_its_episodes(run_suite: RunSuite, tmp_path: Path) -> None:
    run_suite(suite("{protonet: {}}"))
    (grown,) = run_suite(suite("{protonet: {}}", ("episodes: 12", "episodes: 40")))
    values = np.array(accuracies(tmp_path, grown))
    assert grown.primary is not None
    assert grown.primary.value == pytest.approx(values.mean())
    assert grown.primary.std == pytest.approx(values.std(ddof=1))


def essence(record: Record) -> dict[str, Any]:
    return record.model_dump(include={"metrics", "inductive_accuracy", "worst_classes", "transductive"})


def test_an_interrupted_shared_training_gives_the_same_heads(run_suite: RunSuite) -> None:
    text = suite("{protonet: {}, matching: {use: matchingnet, weights: protonet}}")
    undisturbed = run_suite(text, output="undisturbed")
    for phase, after in (("train", 4), ("test", 5)):
        with pytest.raises(Interrupted):
            run_suite(text, watcher=Watching(phase, after))
    assert [essence(record) for record in run_suite(text)] == [essence(record) for record in undisturbed]
