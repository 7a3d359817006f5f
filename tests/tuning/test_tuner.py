"""Searches of whole suites of tiny algorithms, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from metabench.contracts import Interrupted, Request, RunOptions
from metabench.errors import StoreError, UsageError
from metabench.executors.driver import run_work
from metabench.executors.few_shot import FewShot, FewShotPlan
from metabench.planning.suite_file import SuiteFile, read_suite, resolve
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry.manager import PluginManager
from metabench.tuning.table import table_of
from metabench.tuning.tuner import Result, Tuner
from tiny import SUITE, Watching

pytest.importorskip("optuna", reason="the extra tune is not installed")
pytestmark = pytest.mark.usefixtures("one_thread", "few_latencies", "cache")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack the tiny dataset into a folder of the test."""
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METABENCH_DATA", raising=False)


@pytest.fixture(scope="module")
def plugins() -> PluginManager:
    """Return a plugin manager of the built-ins, of `tiny` and of `tunable`."""
    own = [EntryPoint(name, f"{name}:PLUGIN", "metabench") for name in ("tiny", "tunable")]
    return PluginManager([*entry_points(group="metabench"), *own])


class Screen:
    """The console of a search; asks to stop after some trials."""

    def __init__(self, trials: int = 10**6) -> None:
        self.lines: list[str] = []
        self.watchers: list[Watching] = []
        self._trials = trials

    @property
    def interrupted(self) -> bool:
        return False

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def watching(self, title: str) -> Iterator[Watching]:
        stops = len(self.watchers) >= self._trials
        self.watchers.append(Watching("train", 5) if stops else Watching())
        yield self.watchers[-1]


Tune = Callable[..., Result]


@pytest.fixture
def planned(suite_file: Callable[[str], SuiteFile], plugins: PluginManager) -> Callable[[str], FewShotPlan]:
    """Return a function that plans a suite of algorithms."""

    def plan(algorithms: str) -> FewShotPlan:
        file = suite_file(SUITE.format(algorithms=algorithms))
        return FewShot(plugins).plan(file, Request(device="cpu", options=RunOptions(in_process=True)))

    return plan


@pytest.fixture
def tune(tmp_path: Path, planned: Callable[[str], FewShotPlan], packing: Any) -> Tune:
    """Return a function that tunes a suite of algorithms."""

    def start(
        algorithms: str, trials: int, output: str = "out", screen: Screen | None = None, **options: Any
    ) -> Result:
        only, seed = options.get("only", {}), options.get("seed", 0)
        store = Store(tmp_path / output)
        return Tuner(planned(algorithms), only, trials, seed, store, screen or Screen()).run(packing)

    return start


@pytest.fixture
def packing() -> Any:
    """Return a display that shows nothing."""

    @contextmanager
    def nothing() -> Iterator[Any]:
        yield lambda done, total, name: None

    return nothing


def trials_of(folder: Path, label: str = "dial") -> list[dict[str, Any]]:
    """Return the kept trials of a method, without their times."""
    trials = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))["methods"][label]["trials"]
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in trials]


def test_the_best_of_equally_many_trials_is_written_as_a_suite(tune: Tune, tmp_path: Path) -> None:
    screen = Screen()
    result = tune("dial: {params: {unused: b}}, other: {use: dial}, still: {}", 14, screen=screen)
    dial, other, still = result.methods
    assert [len(found.trials) for found in result.methods] == [14, 14, 1]
    assert dial.trials[0].params == {"rate": 0.01, "unused": "b"}, "the suite's own, though it is outside of the range"
    assert other.trials[0].params == {"rate": 0.01, "unused": "a"}
    assert {trial.state for trial in dial.trials} == {"complete", "pruned", "failed"}
    assert dial.best is not None
    assert dial.best.value == max(trial.value for trial in dial.trials if trial.value is not None)
    assert (dial.best.value or 0) > (dial.trials[0].value or 0) + 0.2
    suite, _ = resolve(read_suite(tmp_path / "out" / "suite.yaml"))
    assert suite.name == "tiny-tuned"
    assert suite.algorithms["dial"].params == dial.best.params
    tuned = suite.algorithms["dial"].tuned
    assert tuned is not None
    assert (tuned.trials, tuned.pruned, tuned.failed) == (14, dial.count("pruned"), dial.count("failed"))
    assert still.best is still.trials[0]
    assert suite.algorithms["still"].tuned is not None
    assert suite.algorithms["still"].tuned.trials == 0
    text = table_of(result.methods)
    assert "still: nothing to search, so its own parameters alone" in text
    assert "training diverged: the loss is nan" in text
    assert f"rate {dial.best.params['rate']:g}" in text
    assert any(line.startswith("dial 14/14: ") for line in screen.lines)


def test_a_search_that_was_stopped_goes_on_with_the_same_trials(tune: Tune, tmp_path: Path) -> None:
    tune("dial: {}", 8, output="undisturbed")
    with pytest.raises(Interrupted):
        tune("dial: {}", 8, screen=Screen(trials=3))
    assert len(trials_of(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / "suite.yaml").exists()
    screen = Screen()
    tune("dial: {}", 8, screen=screen)
    assert trials_of(tmp_path / "out") == trials_of(tmp_path / "undisturbed")
    assert "dial: 3 of 8 trials were made before" in screen.lines
    assert len(screen.watchers) <= 5
    tune("dial: {}", 10)
    assert trials_of(tmp_path / "out")[:8] == trials_of(tmp_path / "undisturbed")


def run_tuned(folder: Path, plugins: PluginManager, packing: Any) -> tuple[list[Record], Watching]:
    """Run the tuned suite in the directory of its search."""
    file = read_suite(folder / "suite.yaml")
    plan = FewShot(plugins).plan(file, Request(device="cpu", options=RunOptions(in_process=True)))
    store, watcher = Store(folder), Watching()
    work = plan.prepare(plan.cells, {}, store, packing)
    with store.locked():
        return run_work(work, plugins, store, watcher, plan.request.options), watcher


def test_no_trial_sees_a_test_image_and_a_run_does(
    tune: Tune, plugins: PluginManager, tmp_path: Path, packing: Any
) -> None:
    (dial,) = tune("dial: {}", 4).methods
    assert "complete" in {trial.state for trial in dial.trials}
    assert not [trial.reason for trial in dial.trials if "test image" in trial.reason]
    (record,), _ = run_tuned(tmp_path / "out", plugins, packing)
    assert record.status == "failed"
    assert "it has seen a test image" in str(record.error)


def test_the_weights_of_the_best_trial_serve_the_run_of_the_tuned_suite(
    tune: Tune, plugins: PluginManager, tmp_path: Path, packing: Any
) -> None:
    result = tune("still: {}, head: {use: steps, weights: still}", 6)
    head = result.methods[1]
    assert [found.search.label for found in result.methods] == ["still", "head"]
    assert head.best is not None
    assert head.best.params == {"steps": 3}
    assert len(head.trials) == 6, "of three different parameters"
    records, watcher = run_tuned(tmp_path / "out", plugins, packing)
    assert [record.error for record in records] == [None, None]
    assert [record.trials for record in records] == [0, 6]
    assert not [name for name, _, _ in watcher.phases if name == "train"]


def test_a_method_is_tuned_after_those_whose_weights_it_uses(tune: Tune) -> None:
    result = tune("head: {use: steps, weights: dial}, dial: {}", 3)
    assert [found.search.label for found in result.methods] == ["dial", "head"]


def test_of_a_method_that_trains_nothing_only_parameters_of_the_test_are_searched(tune: Tune) -> None:
    (steps, dial) = tune("steps: {}, dial: {train: none}", 2).methods
    assert list(steps.search.space) == ["steps"]
    assert not dial.search.space


def test_only_some_methods_are_tuned(tune: Tune) -> None:
    result = tune("dial: {}, other: {use: dial}", 2, only={"algorithm": ["other"]})
    assert [found.search.label for found in result.methods] == ["other"]
    assert result.settings["algorithms"]["dial"]["tuned"] is None


def test_a_suite_without_anything_to_search_is_refused(tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is nothing to search: no algorithm of 'tiny' declares a search_space"):
        tune("still: {}", 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithms": "dial: {params: {unused: b}}"}, "is the tuning of tiny, not of these settings"),
        ({"seed": 1}, "was searched with --seed 0, not 1"),
        ({"only": {"algorithm": ["dial"]}}, "was searched with other --only"),
    ],
)
def test_an_output_of_another_search_is_refused(tune: Tune, changes: dict[str, Any], message: str) -> None:
    tune("dial: {}", 2)
    with pytest.raises(StoreError, match=message):
        tune(**{"algorithms": "dial: {}", "trials": 2, **changes})


def test_the_output_of_a_run_is_refused(tune: Tune, tmp_path: Path) -> None:
    Store(tmp_path / "out").write_suite({"name": "tiny"})
    with pytest.raises(StoreError, match="holds a run"):
        tune("dial: {}", 2)
