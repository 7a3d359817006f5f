"""Runs that are interrupted, have failing cells, or have listeners."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from command_line import SUITE, Command, Distributions, Ended, essence, same
from metabench.executors.forks import start_is_cheap
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")


TRIPWIRE = """
    import multiprocessing
    import os
    import threading

    from metabench_plugins.algorithms.protonet import ProtoNet


    class Tripwire(ProtoNet):
        count = 0

        def train_step(self, episodes):
            metrics = super().train_step(episodes)
            self.count += 1
            if self.count == int(os.environ.get("TRIP_AT", "-1")):
                if os.environ["TRIP_WITH"] == "raise":
                    raise RuntimeError("tripped over the wire")
                parent = multiprocessing.parent_process()
                process = parent.pid if "TRIP_PARENT" in os.environ else os.getpid()
                os.kill(process, int(os.environ["TRIP_WITH"]))
                if "TRIP_TWICE" in os.environ:
                    threading.Event().wait(0.2)
                    os.kill(process, int(os.environ["TRIP_WITH"]))
            return metrics
    """

TRIPPING = SUITE[: SUITE.index("  siamese")] + "  tripwire: {}\n" + SUITE[SUITE.index("ways") : SUITE.index("profiles")]

#: Only the tripwire, trained for long.
LONG = TRIPPING.replace("  protonet: {}\n", "").replace("tripwire: {}", "tripwire: {train: {steps: 10000}}")


@pytest.fixture
def tripwire(distributions: Distributions, metabench: Command) -> Command:
    """Return `metabench`, with a suite whose second algorithm sends the signal TRIP_WITH at step TRIP_AT."""
    source = (
        "from metabench.specs import AlgorithmSpec, hookimpl\n@hookimpl\ndef metabench_algorithms():\n"
        '    return [AlgorithmSpec("tripwire", "fake_tripwire:Tripwire", "")]\n'
    )
    distributions.add("trip-plugin", source)
    distributions.modules.append("fake_tripwire")
    (distributions.folder / "fake_tripwire.py").write_text(textwrap.dedent(TRIPWIRE), encoding="utf-8")
    Path("small.yaml").write_text(TRIPPING, encoding="utf-8")
    return metabench


def run_and_signal(folder: Path, step: int, number: int, *options: str) -> Ended:
    """Run the suite in a new process, which gets a signal at a step of its second cell."""
    script = (
        # A shell starts background processes with SIGINT ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from metabench.engine.checkpoints import CheckpointClock; CheckpointClock.is_due = True\n"
        "import torch; torch.set_num_threads(1)\n"
        "from metabench.cli import main; main()"
    )
    path = os.pathsep.join(
        filter(None, [str(folder), os.environ.get("PYTHONPATH")])
    )  # this checkout, if it is on the path
    environment = {**os.environ, "PYTHONPATH": path, "TRIP_AT": str(step), "TRIP_WITH": str(int(number))}
    command = [sys.executable, "-c", script, "run", "small.yaml", "--output", "out", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["interrupted", "killed"]
)
def test_a_stopped_run_keeps_finished_cells_and_resumes_with_the_same_results(
    tripwire: Command, distributions: Distributions, number: signal.Signals, code: int
) -> None:
    stopped = run_and_signal(distributions.folder, 35, number, "--in-process")
    assert stopped.code == code, stopped.err
    assert "Traceback" not in stopped.err
    store = Store(Path("out"))
    assert [record.algorithm for record in store.records()] == ["protonet"]
    assert len(list(Path("out/checkpoints").iterdir())) == 1
    if number != signal.SIGKILL:
        assert "run the same command again" in stopped.err
        assert not list(Path("out").rglob("*.tmp"))
    again = tripwire("run", "small.yaml", "--output", "out")
    assert again.code == 0
    assert "kept    protonet" in again.err
    assert "done    tripwire" in again.err
    assert tripwire("run", "small.yaml", "--output", "undisturbed").code == 0
    undisturbed = Store(Path("undisturbed"))
    assert essence(store.records()) == essence(undisturbed.records())
    for record in undisturbed.records():
        assert same(store.episodes(record), undisturbed.episodes(record))
    assert not list(Path("out/checkpoints").iterdir())


@pytest.mark.slow
def test_an_interrupt_stops_all_workers_and_their_cells_resume(
    tripwire: Command, distributions: Distributions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIP_PARENT", "1")
    text = Path("small.yaml").read_text(encoding="utf-8")
    Path("small.yaml").write_text(text.replace("  protonet: {}\n", "  protonet: {train: {steps: 100000}}\n"))
    stopped = run_and_signal(distributions.folder, 35, signal.SIGINT, "--jobs", "2")
    assert stopped.code == 130, stopped.err
    assert "Traceback" not in stopped.err
    assert not Store(Path("out")).records()
    assert len(list(Path("out/checkpoints").iterdir())) == 2
    monkeypatch.delenv("TRIP_PARENT")
    only = ("--only", "algorithm=tripwire")
    assert tripwire("run", "small.yaml", "--output", "out", *only).code == 0
    assert tripwire("run", "small.yaml", "--output", "undisturbed", *only).code == 0
    assert essence(Store(Path("out")).records()) == essence(Store(Path("undisturbed")).records())


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_two_interrupts_within_a_second_end_all_processes_without_a_traceback(
    tripwire: Command, distributions: Distributions, monkeypatch: pytest.MonkeyPatch, jobs: str
) -> None:
    monkeypatch.setenv("TRIP_PARENT", "1")
    monkeypatch.setenv("TRIP_TWICE", "1")
    Path("small.yaml").write_text(LONG, encoding="utf-8")
    stopped = run_and_signal(distributions.folder, 35, signal.SIGINT, "--jobs", jobs)  # ends when no process is left
    assert stopped.code == 130, stopped.err
    assert "Traceback" not in stopped.err
    assert not list(Path("out").rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.skipif(
    not start_is_cheap(), reason="no fork server (Linux, Python ≥ 3.11): one cell at a time has no worker"
)
def test_a_worker_whose_main_process_is_killed_writes_a_checkpoint_and_ends(
    tripwire: Command, distributions: Distributions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIP_PARENT", "1")
    Path("small.yaml").write_text(LONG, encoding="utf-8")
    killed = run_and_signal(distributions.folder, 35, signal.SIGKILL)  # ends when no process is left
    assert killed.code == -signal.SIGKILL
    assert "Traceback" not in killed.err
    assert len(list(Path("out/checkpoints").glob("*.pt"))) == 1


@pytest.mark.slow
def test_a_killed_worker_fails_only_its_cell(
    tripwire: Command, distributions: Distributions, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run_and_signal(distributions.folder, 5, signal.SIGKILL, "--jobs", "2")
    assert ended.code == 1, ended.err
    assert "FAILED  tripwire" in ended.err
    assert "its process was killed (signal 9)" in ended.err
    assert {record.algorithm: record.status for record in Store(Path("out")).records()} == {
        "protonet": "ok",
        "tripwire": "failed",
    }


def test_several_jobs_give_the_same_results(metabench: Command) -> None:
    assert metabench("run", "small.yaml", "--output", "one").code == 0
    ended = metabench("run", "small.yaml", "--output", "both", "--jobs", "2")
    assert ended.code == 0, ended.err
    one, both = Store(Path("one")), Store(Path("both"))
    of_one, of_both = (
        [{**record, "device": "", "machine": {}} for record in essence(store.records())] for store in (one, both)
    )
    assert of_one == of_both
    assert {record.device.rpartition(", ")[2] for record in both.records()} == {"2 cells at once"}
    assert {record.machine.cells_at_once for record in both.records()} == {2}
    for record in one.records():
        assert same(one.episodes(record), both.episodes(record))


@pytest.mark.slow
def test_several_jobs_run_a_shared_training_once_with_the_same_results(metabench: Command) -> None:
    text = Path("small.yaml").read_text(encoding="utf-8")
    Path("small.yaml").write_text(
        text.replace("shots: [1]", "shots: [1, 2]").replace("steps: 60", "steps: 60, shot: 2")
    )
    assert metabench("run", "small.yaml", "--output", "one").code == 0
    ended = metabench("run", "small.yaml", "--output", "both", "--jobs", "3")
    assert ended.code == 0, ended.err
    assert "2 cells at once" in ended.err, "at most one cell per training"
    one, both = Store(Path("one")).records(), Store(Path("both")).records()
    of_one, of_both = (
        [{**record, "device": "", "machine": {}} for record in essence(records)] for records in (one, both)
    )
    assert of_one == of_both
    for records in (one, both):
        assert len({record.train.seconds for record in records if record.train}) == 2
    assert not list(Path("both/checkpoints").glob("*"))


def test_a_terminated_run_keeps_finished_cells(tripwire: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIP_AT", "5")
    monkeypatch.setenv("TRIP_WITH", str(int(signal.SIGTERM)))
    ended = tripwire("run", "small.yaml", "--output", "out", "--in-process")
    assert ended.code == 130
    assert "Stopped. Everything finished is in out; run the same command again to go on." in ended.err
    assert [record.algorithm for record in Store(Path("out")).records()] == ["protonet"]
    assert len(list(Path("out/checkpoints").iterdir())) == 1


def test_a_failed_cell_gives_exit_code_1_and_runs_again(tripwire: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIP_AT", "5")
    monkeypatch.setenv("TRIP_WITH", "raise")
    failed = tripwire("run", "small.yaml", "--output", "out")
    assert failed.code == 1
    assert re.search(r"^FAILED  tripwire .*RuntimeError: tripped over the wire \(see cells/", failed.err, re.MULTILINE)
    assert "Traceback" not in failed.err
    assert "tripwire failed: RuntimeError: tripped over the wire" in failed.out
    assert tripwire("leaderboard", "out").code == 0
    rows = pd.read_csv(io.StringIO(tripwire("leaderboard", "out", "--format", "csv").out))
    assert list(rows["status"]) == ["ok", "failed"]
    monkeypatch.delenv("TRIP_AT")
    assert tripwire("run", "small.yaml", "--output", "out").code == 0
    assert {record.status for record in Store(Path("out")).records()} == {"ok"}
    assert not list(Path("out/cells").glob("*.traceback.txt")), "a traceback is deleted with its failure"


def test_listeners_receive_all_events_of_a_run(metabench: Command, distributions: Distributions) -> None:
    source = (
        "from metabench.specs import hookimpl\nheard = []\n"
        "@hookimpl\ndef metabench_run_started(output, suite, cells): heard.append((suite['name'], cells))\n"
        "@hookimpl\ndef metabench_cell_finished(record):\n"
        "    heard.append(record['algorithm'])\n    raise RuntimeError('no network')\n"
        "@hookimpl\ndef metabench_run_finished(records): heard.append(len(records))\n"
    )
    module = distributions.add("listening-one", source)
    ended = metabench("run", "small.yaml", "--profile", "smoke", "--output", "out")
    assert ended.code == 0
    assert sys.modules[module].heard == [("small", 2), "protonet", "siamese", 2]
