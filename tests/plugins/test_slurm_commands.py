"""The SLURM executor by the commands that it calls; they are made up here, and real in test_slurm.py."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from command_line import SUITE, Command, assert_refused
from metabench.contracts import Condition, MetabenchError, Resources, Ticket

pytest.importorskip("submitit", reason="submitit is not installed: no SLURM executor")

from metabench_plugins.executors.slurm import Slurm, SlurmConfig
from metabench_plugins.executors.slurm_files import Handle

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on the PATH with SLURM's commands, which do nothing."""
    folder = tmp_path / "commands"
    folder.mkdir()
    for name in COMMANDS:
        says(folder, name, "")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def says(folder: Path, name: str, answer: str, code: int = 0, stream: int = 1) -> None:
    """Let a command keep its arguments, and answer."""
    script = f"#!/bin/sh\necho \"$@\" >> {folder / name}.called\ncat >&{stream} <<'END'\n{answer}\nEND\nexit {code}\n"
    (folder / name).write_text(script)
    (folder / name).chmod(stat.S_IRWXU)


def tickets(folder: Path, count: int, gpus: int = 0) -> list[Ticket]:
    return [
        Ticket(folder / "out" / "jobs" / f"job{number}", 1, "a job", Resources(gpus=gpus, memory_mb=500))
        for number in range(count)
    ]


def script(folder: Path) -> str:
    """Return the only script that was submitted."""
    (path,) = (folder / "out" / "slurm").glob("*_submission.sh")
    return path.read_text()


def test_all_jobs_are_one_array_with_the_options_of_the_file(commands: Path, tmp_path: Path) -> None:
    says(commands, "sbatch", "Submitted batch job 12")
    config = SlurmConfig(
        partition="gpu", gpus=2, timeout=5400.0, jobs=2, threads=3, sbatch={"exclude": "node7"}, setup=["module load x"]
    )
    handles = Slurm(config).submit(tickets(tmp_path, 3))
    assert [Handle.read(text).task for text in handles] == ["12_0", "12_1", "12_2"]
    lines = script(tmp_path).splitlines()
    asked = ["array=0-2%2", "partition=gpu", "gpus-per-node=2", "time=90", "mem=500M", "exclude=node7", "requeue"]
    assert [option for option in asked if f"#SBATCH --{option}" not in lines] == []
    assert lines.index("module load x") < next(number for number, line in enumerate(lines) if line.startswith("srun"))


def test_jobs_that_compute_on_a_gpu_ask_for_one(commands: Path, tmp_path: Path) -> None:
    says(commands, "sbatch", "Submitted batch job 12")
    Slurm(SlurmConfig()).submit(tickets(tmp_path, 1, gpus=1))
    assert "#SBATCH --gpus-per-node=1\n" in script(tmp_path)


def test_more_jobs_than_tasks_are_dealt_to_them(commands: Path, tmp_path: Path) -> None:
    says(commands, "sbatch", "Submitted batch job 12")
    handles = [Handle.read(text) for text in Slurm(SlurmConfig(array=2)).submit(tickets(tmp_path, 5))]
    assert [(handle.task, handle.shared_by) for handle in handles] == [
        ("12_0", 3), ("12_1", 2), ("12_0", 3), ("12_1", 2), ("12_0", 3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("12_0 PENDING 0", Condition("waiting")),
        ("12_0 REQUEUED 0", Condition("waiting")),
        ("12_0 RUNNING 0", Condition("running")),
        ("12_0 COMPLETING 0", Condition("running")),
        ("12_0 COMPLETED 0", Condition("ended")),
        ("12_0 NODE_FAIL 0", Condition("died", "its node was lost", by_machine=True)),
        ("12_0 TIMEOUT 0", Condition("died", "its SLURM job reached its time limit", by_machine=True)),
        # As SLURM 22.05 says it: a wait status, of a script that a signal killed, and of one whose step was.
        ("12_0 FAILED 9", Condition("died", "its SLURM job was killed (signal 9)", by_machine=True)),
        ("12_0 FAILED 35072", Condition("died", "its SLURM job was killed (signal 9)", by_machine=True)),
        ("12_0 CANCELLED 0", Condition("died", "its SLURM job was cancelled (scancel)")),
        ("", Condition("died", "SLURM does not know its job any more", by_machine=True)),
    ],
)
def test_states_of_the_queue_become_conditions(commands: Path, tmp_path: Path, line: str, expected: Condition) -> None:
    says(commands, "squeue", line)
    handle = str(Handle.of(tickets(tmp_path, 1)[0], "12_0"))
    assert Slurm(SlurmConfig()).alive([handle]) == {handle: expected}


def test_a_job_that_fails_names_the_file_of_its_messages(commands: Path, tmp_path: Path) -> None:
    says(commands, "squeue", "12_0 FAILED 1")
    handle = str(Handle.of(tickets(tmp_path, 1)[0], "12_0"))
    condition = Slurm(SlurmConfig()).alive([handle])[handle]
    assert not condition.by_machine
    assert condition.reason.endswith(f"FAILED: see {tmp_path}/out/slurm/12_0_0_log.err")


def test_an_unknown_job_is_none_but_a_silent_controller_changes_nothing(commands: Path, tmp_path: Path) -> None:
    handle = str(Handle.of(tickets(tmp_path, 1)[0], "12_0"))
    slurm = Slurm(SlurmConfig(poll=1e-9))
    says(commands, "squeue", "12_0 RUNNING 0")
    assert slurm.alive([handle])[handle] == Condition("running")
    says(commands, "squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1, stream=2)
    assert slurm.alive([handle])[handle] == Condition("running")
    says(commands, "squeue", "slurm_load_jobs error: Invalid job id specified", code=1, stream=2)
    assert slurm.alive([handle])[handle].state == "died"


def test_the_queue_is_asked_once_in_a_while_for_all_jobs(commands: Path, tmp_path: Path) -> None:
    says(commands, "squeue", "12_0 RUNNING 0\n12_1 PENDING 0")
    first, second = (str(Handle.of(tickets(tmp_path, 1)[0], task)) for task in ("12_0", "12_1"))
    slurm = Slurm(SlurmConfig())
    for _ in range(5):
        assert slurm.alive([first, second])[second] == Condition("waiting")
    assert len((commands / "squeue.called").read_text().splitlines()) == 1


def test_a_task_says_how_its_jobs_ended_while_it_goes_on(commands: Path, tmp_path: Path) -> None:
    says(commands, "squeue", "12_0 RUNNING 0")
    died, ended, running = (Handle.of(ticket, "12_0", 3) for ticket in tickets(tmp_path, 3))
    folder = tmp_path / "out" / "slurm"
    folder.mkdir(parents=True)
    killed = Condition("died", "its process was killed", by_machine=True)
    died.write_end(killed)
    ended.write_end(Condition("ended"))
    found = Slurm(SlurmConfig()).alive([str(died), str(ended), str(running)])
    assert list(found.values()) == [killed, Condition("ended"), Condition("running")]


def test_cancelling_one_of_several_jobs_of_a_task_leaves_the_task(commands: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "slurm").mkdir(parents=True)
    tasks = [("12_0", 1), ("12_1", 2), ("12_1", 2)]
    alone, *shared = (Handle.of(job, *task) for job, task in zip(tickets(tmp_path, 3), tasks, strict=True))
    Slurm(SlurmConfig()).cancel([str(alone), str(shared[0])])
    assert (commands / "scancel.called").read_text().split()[-1] == "12_0"
    assert [handle.should_stop for handle in shared] == [True, False]


def test_what_sbatch_refuses_is_said(commands: Path, tmp_path: Path) -> None:
    says(commands, "sbatch", "sbatch: error: invalid partition specified: gpus", code=1, stream=2)
    with pytest.raises(MetabenchError, match="SLURM refuses the jobs: sbatch: error: invalid partition"):
        Slurm(SlurmConfig()).submit(tickets(tmp_path, 2))


def test_a_computer_without_slurm_is_refused_in_a_sentence(metabench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("small.yaml").write_text(SUITE)
    monkeypatch.setenv("PATH", "/nowhere")
    ended = metabench("run", "small.yaml", "--executor", "slurm")
    assert_refused(ended, ["the executor 'slurm' runs on a computer of a SLURM cluster", "sbatch"])


def test_a_wrong_option_names_file_and_line(commands: Path, metabench: Command) -> None:
    Path("small.yaml").write_text(SUITE)
    Path("slurm.yaml").write_text("executor: slurm\npartition: gpu\ntimeout: 4 hours\n")
    assert_refused(metabench("run", "small.yaml", "--executor", "slurm.yaml"), ["slurm.yaml:3", "timeout", '"10m"'])
