"""`metabench run --executor`, `status` and `cancel`."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from bandits import BANDITS, SUITE
from command_line import Command, Distributions, assert_refused
from metabench.executors.going_run import GoingRun
from metabench.executors.job_files import Claim, Progress, Submitted
from metabench.executors.job_folder import JobFolder
from metabench.records.store import Store
from subprocesses import SUBPROCESSES

pytestmark = pytest.mark.usefixtures("one_thread")

#: A policy that explores until a file is there.
PATIENT = BANDITS.replace(
    "watcher.advance(episode + 1)\n",
    "watcher.advance(episode + 1)\n"
    "            while cell.policy == 'patient' and not os.path.exists('go'):\n"
    "                if watcher.should_stop():\n"
    "                    raise Interrupted\n",
)


@pytest.fixture
def explored(distributions: Distributions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a suite of bandits, in the current folder, with two executors of a plugin."""
    assert PATIENT != BANDITS
    distributions.add("bandits", PATIENT)
    distributions.add("subprocesses", SUBPROCESSES)
    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "explored.yaml"
    suite.write_text(SUITE, encoding="utf-8")
    return suite


def test_the_executors_are_listed_with_their_options(metabench: Command, explored: Path) -> None:
    assert "lasting  " in metabench("list", "executors").out
    described = metabench("list", "processes").out
    assert "executor of metabench" in described
    assert re.search(r"per_device +integer > 0 +1 +jobs at once on each GPU", described)


@pytest.mark.slow
def test_an_executor_of_a_plugin_gives_the_results_of_worker_processes(metabench: Command, explored: Path) -> None:
    Path("place.yaml").write_text("executor: subprocesses\nplaces: 2\nlimits: {test: 10m}\n", encoding="utf-8")
    for output, executor in (("here", "processes"), ("there", "place.yaml")):
        ended = metabench("run", str(explored), "--output", output, "--executor", executor)
        assert ended.code == 0, ended.err
    here, there = (
        {record.algorithm: record.metrics for record in Store(Path(output)).records()} for output in ("here", "there")
    )
    assert here == there
    assert len(here) == 2
    assert not Path("there/jobs").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("executor: subprocesses\nplace: 2\n", ["place.yaml:2: place: unknown key 'place' (did you mean 'places'?)"]),
        ("executor: subprocesses\nplaces: many\n", ["place.yaml:2: places: input should be a valid integer"]),
        ("executor: subprocess\n", ["place.yaml:1: executor: no executor 'subprocess' (did you mean 'subprocesses'?)"]),
        ("places: 2\n", ["place.yaml:1: the name of the executor is missing"]),
        ("executor: processes\nlimits: {test: 10 min}\n", ["place.yaml:2: limits.test: a duration is a number of"]),
    ],
    ids=["key", "value", "name", "no name", "duration"],
)
def test_a_wrong_file_of_an_executor_is_refused_with_its_line(
    metabench: Command, explored: Path, text: str, parts: list[str]
) -> None:
    Path("place.yaml").write_text(text, encoding="utf-8")
    assert_refused(metabench("run", str(explored), "--executor", "place.yaml"), parts)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--executor", "clouds"), ["no executor 'clouds'. Available: lasting, processes, slurm, subprocesses"]),
        (("--executor", "lasting", "--per-device", "2"), ["--per-device is no option of the executor 'lasting'"]),
        (("--detach",), ["--detach: jobs of the executor 'processes' end with this command"]),
        (("--in-process", "--jobs", "2"), ["--in-process runs one cell at a time"]),
        (("--device", "cuda:1"), ["GPUs are chosen by CUDA_VISIBLE_DEVICES=1: give --device cuda"]),
        (("--device", "mps"), ["metabench does not run on mps", "--device cpu"]),
    ],
)
def test_options_that_do_not_fit_are_refused_with_a_sentence(
    metabench: Command, explored: Path, options: tuple[str, ...], parts: list[str]
) -> None:
    assert_refused(metabench("run", str(explored), *options), parts)


def wait_for(folder: JobFolder) -> None:
    """Wait until a job has begun."""
    deadline = time.monotonic() + 120
    while folder.progress() is None or not folder.progress().phase:  # type: ignore[union-attr]
        assert time.monotonic() < deadline, "the job does not begin"
        time.sleep(0.05)


@pytest.mark.slow
def test_detached_jobs_are_shown_adopted_and_never_submitted_twice(metabench: Command, explored: Path) -> None:
    explored.write_text(SUITE.replace("[greedy, first]", "[patient]"), encoding="utf-8")
    run = ("run", str(explored), "--output", "out", "--executor", "lasting")
    ended = metabench(*run, "--detach")
    assert ended.code == 0, ended.err
    assert "1 job submitted" in ended.out
    (folder,) = JobFolder.all(Path("out"))
    handle = folder.handle()
    wait_for(folder)
    shown = json.loads(metabench("status", "out", "--format", "json").out)
    (cell,) = shown["cells"]
    assert (cell["state"], cell["phase"], cell["attempt"]) == ("running", "test", 1)
    assert shown["jobs"] == 1
    assert "running  patient · bandits · table" in metabench("status", "out").out
    assert metabench(*run, "--detach").code == 0
    assert folder.handle() == handle, "it is adopted"
    Path("go").touch()
    ended = metabench(*run)
    assert ended.code == 0, ended.err
    assert re.search(r"^(done|kept)    patient", ended.err, re.M)
    assert not Path("out/jobs").exists()


@pytest.mark.slow
def test_cancelled_jobs_end_and_run_again_when_they_are_asked_for(metabench: Command, explored: Path) -> None:
    explored.write_text(SUITE.replace("[greedy, first]", "[patient]"), encoding="utf-8")
    run = ("run", str(explored), "--output", "out", "--executor", "lasting")
    assert metabench(*run, "--detach").code == 0
    (folder,) = JobFolder.all(Path("out"))
    wait_for(folder)
    cancelled = metabench("cancel", "out")
    assert (cancelled.code, cancelled.out.startswith("1 job cancelled")) == (0, True), cancelled.err
    deadline = time.monotonic() + 60
    while (ended := folder.ended(1)) is None:
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.05)
    assert ended.how == "interrupted"
    assert json.loads(metabench("status", "out", "--format", "json").out)["jobs"] == 0
    again = metabench("cancel", "out")
    assert (again.code, again.out.startswith("no job goes on")) == (0, True), again.err
    Path("go").touch()
    assert metabench(*run).code == 0
    assert [record.status for record in Store(Path("out")).records()] == ["ok"]


def test_jobs_that_end_with_their_run_are_not_cancelled_from_elsewhere(metabench: Command, tmp_path: Path) -> None:
    assert_refused(metabench("cancel", str(tmp_path)), ["nothing runs in"])
    GoingRun.of_this_process(executor="processes", cells=["0" * 16]).write(tmp_path / "jobs")
    submitted = Submitted(title="a job", cells=["0" * 16], executor="processes", attempt=1)
    folder = JobFolder.of(tmp_path, "key")
    folder.path.mkdir(parents=True)
    (folder.path / "job.json").write_text(submitted.model_dump_json(), encoding="utf-8")
    assert_refused(metabench("cancel", str(tmp_path)), ["press Ctrl-C there, or send SIGINT to process"])


def test_a_run_has_a_status_before_it_during_it_and_after_it(metabench: Command, explored: Path) -> None:
    assert_refused(metabench("status", "out"), ["no run in out: give the --output of a `metabench run`"])
    assert metabench("run", str(explored), "--output", "out").code == 0
    done = metabench("status", "out")
    assert done.out == "out: 2 cells: 2 ok\nno run goes on here\n"
    cells = [cell["cell"] for cell in json.loads(metabench("status", "out", "--format", "json").out)["cells"]]
    GoingRun.of_this_process(
        executor="processes", cells=cells, slots=1, expected=dict.fromkeys(cells, 90.0), outlives_driver=False
    ).write(Path("out", "jobs"))
    folder = JobFolder.of(Path("out"), "key")
    (folder.path / "results").mkdir(parents=True)
    submitted = Submitted(title="a job", cells=cells, executor="processes", attempt=2)
    (folder.path / "job.json").write_text(submitted.model_dump_json(), encoding="utf-8")
    claim = Claim.of_this_process(2)
    assert folder.take(claim)
    folder.beat(1)
    folder.write_progress(
        Progress(cell=cells[0], phase="test", phases=1, total=600, done=300, note="80.1", seconds=30.0)
    )
    going = metabench("status", "out")
    assert "out: 2 cells: 1 running, 1 waiting" in going.out
    assert "executor processes, 1 at once" in going.out
    assert re.search(r"^running  \w+ · .*  test 300/600 80\.1  process \d+ on \S+, attempt 2$", going.out, re.M)
    assert re.search(r"^expected end: \d\d:\d\d, in about 2 min$", going.out, re.M)  # 60 s and 90 s are left
    folder.release(claim)
    assert folder.take(claim.model_copy(update={"pid": 2**22 + 1}))
    assert "lost     " in metabench("status", "out").out


def test_a_terminal_is_needed_to_watch(metabench: Command, tmp_path: Path) -> None:
    assert_refused(metabench("status", str(tmp_path), "--watch"), ["--watch is for a terminal"])
