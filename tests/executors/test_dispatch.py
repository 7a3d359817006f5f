"""The driver's loop, with jobs that do what a script says, on worker processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from metabench.contracts import ExecutorConfig, Interrupted, Resources
from metabench.executors.local import Processes, ProcessesConfig
from scripted import LIMITS, Scripted, Watching, cell, run, tries

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_job_that_is_killed_at_its_third_test_is_tried_again_and_repeats_no_other(tmp_path: Path) -> None:
    log, watching = tmp_path / "log", Watching()
    cells = [cell(0), cell(1), cell(2, "killed once"), cell(3)]
    said = run([Scripted("a", log, cells)], tmp_path / "out", watching)
    assert all(line.startswith("GPU") for line in said)
    assert tries(log) == {0: 1, 1: 1, 2: 2, 3: 1}
    (reason,) = watching.retried
    assert "signal 9" in reason
    assert not (tmp_path / "out" / "jobs").exists(), "the folder of a job goes when its cells have records"


@pytest.mark.parametrize(("retries", "times"), [(0, 1), (2, 3)])
def test_a_job_that_is_killed_each_time_fails_after_the_retries(tmp_path: Path, retries: int, times: int) -> None:
    log = tmp_path / "log"
    jobs = [Scripted("a", log, [cell(0), cell(1, "killed"), cell(2)]), Scripted("b", log, [cell(3)])]
    first, killed, after, other = run(jobs, tmp_path / "out", retries=retries)
    assert first.startswith("GPU")
    assert other.startswith("GPU")
    assert "its process was killed (signal 9)" in killed
    assert after == killed
    assert (f"({times} times)" in killed) == (times > 1)
    assert tries(log) == {0: 1, 1: times, 3: 1}


def test_a_job_that_exits_by_itself_is_not_tried_again(tmp_path: Path) -> None:
    log, watching = tmp_path / "log", Watching()
    first, exited, after = run([Scripted("a", log, [cell(0), cell(1, "exits"), cell(2)])], tmp_path / "out", watching)
    assert first.startswith("GPU")
    assert exited == after == "its process ended (exit code 3); see its messages above"
    assert watching.retried == []
    assert tries(log) == {0: 1, 1: 1}


@pytest.mark.slow
def test_a_test_that_hangs_fails_at_its_limit_and_the_others_go_on(tmp_path: Path) -> None:
    log, watching = tmp_path / "log", Watching()
    first, hung, last = run(
        [Scripted("a", log, [cell(0), cell(1, "hangs"), cell(2)], needs=LIMITS)], tmp_path / "out", watching
    )
    assert hung == "the test took longer than its limit of 1 s (limits.test)"
    assert first.startswith("GPU")
    assert last.startswith("GPU")
    assert tries(log) == {0: 1, 1: 1, 2: 1}
    assert watching.retried == []


def test_a_job_starts_after_those_that_it_needs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [Scripted("late", log, [cell(2)], after=["early"]), Scripted("early", log, [cell(1)])]
    watching = Watching()
    run(jobs, tmp_path / "out", watching, jobs=2)
    assert watching.started == [cell(1).id, cell(2).id]


def test_a_run_that_is_stopped_ends_its_workers_and_leaves_no_folder(tmp_path: Path) -> None:
    watching = Watching()
    watching.stop = lambda: bool(watching.phases)
    with pytest.raises(Interrupted):
        run([Scripted("a", tmp_path / "log", [cell(0, "goes on")])], tmp_path / "out", watching)
    assert watching.phases == [("test", 10, 0)]
    assert not (tmp_path / "out" / "jobs").exists()


def seen_gpus(said: list[str]) -> list[str]:
    return sorted(line.partition(", process")[0].removeprefix("GPU ") for line in said)


@pytest.mark.parametrize(
    ("visible", "config", "slots", "seen"),
    [
        ("3,5", ProcessesConfig(jobs=8), 2, {"3", "5"}),
        ("MIG-abc,GPU-1f,2", ProcessesConfig(jobs=2), 2, {"MIG-abc", "GPU-1f"}),
        ("7", ProcessesConfig(jobs=8, per_device=2), 2, {"7"}),
        ("", ProcessesConfig(jobs=8), 1, {""}),
    ],
    ids=["numbers", "names", "two a GPU", "none"],
)
def test_a_job_sees_one_of_the_gpus_that_the_run_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, config: ExecutorConfig, slots: int, seen: set[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    needs, executor = Resources(gpus=1), Processes(config)
    assert executor.slots(needs) == slots
    assert executor.slots(Resources()) == config.jobs
    jobs = [Scripted(str(i), tmp_path / "log", [cell(i)], needs=needs) for i in range(4)]
    assert set(seen_gpus(run(jobs, tmp_path / "out", executor=executor))) == seen


def test_a_job_without_a_gpu_sees_what_the_run_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert seen_gpus(run([Scripted("a", tmp_path / "log", [cell(0)])], tmp_path / "out")) == ["3,5"]
