"""Jobs of a SLURM cluster: one array for all that may start, requeued at time limits and preemptions.

submitit submits the array and requeues its tasks. States are those of ``squeue``: submitit would ask ``sacct``, which
needs accounting. The output directory and the Python environment lie on a disk that all computers share.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, ClassVar

import submitit
from pydantic import Field, NonNegativeInt, PositiveInt

from metabench.contracts import Condition, Duration, Executor, ExecutorConfig, MetabenchError, Resources, Ticket
from metabench_plugins.executors.slurm_files import Handle, folder_of, minutes
from metabench_plugins.executors.slurm_task import SlurmTask

#: Commands of SLURM that are used here, and by submitit.
_COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
#: Most tasks of an array: less than SLURM's default of MaxArraySize.
_MOST_TASKS = 1000
#: How often a task may reach its time limit.
_MOST_TIMEOUTS = 100
#: Most seconds before its time limit at which a task stops, with a checkpoint.
_ANNOUNCED_SECONDS = 90
#: Most seconds between two looks at the files of jobs.
_LOOK_SECONDS = 1.0
#: Most seconds that a command of SLURM may take.
_COMMAND_SECONDS = 120

_WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT", "CONFIGURING"}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
#: States that are the machine's doing.
_BY_MACHINE = {
    "TIMEOUT": "its SLURM job reached its time limit",
    "PREEMPTED": "its SLURM job was preempted",
    "NODE_FAIL": "its node was lost",
    "BOOT_FAIL": "its node did not start",
    "OUT_OF_MEMORY": "its node had not enough memory for it: ask for more by memory_mb",
    "REVOKED": "its SLURM job was moved to another cluster",
    "": "SLURM does not know its job any more",
}
#: Exit codes of a task that was killed, as itself and as its shell say it.
_KILLED = {-9, 128 + 9}


class SlurmConfig(ExecutorConfig):
    """Options of SLURM jobs.

    Attributes:
        jobs: most tasks of an array at once; None leaves it to the cluster.
        threads: processors of a task, and threads of its worker.
        array: most tasks of an array; each runs its share of the jobs, one after the other. None gives each job a task
            of its own.
        partition: partition of the cluster; None means its default.
        gpus: GPUs of a task; None asks for one if the jobs compute on a GPU.
        timeout: time limit of a task; a task that reaches it is queued again, and its job goes on from a checkpoint.
        account: account that is charged.
        qos: quality of service.
        constraint: features that a node must have.
        sbatch: further options of sbatch by their long names, e.g. ``{exclude: node7}``.
        setup: lines of shell that a task runs first, e.g. ``module load cuda``.
        poll: seconds between two looks at the queue.
    """

    threads: PositiveInt | None = 1
    array: Annotated[PositiveInt, Field(le=_MOST_TASKS)] | None = None
    partition: str | None = None
    gpus: NonNegativeInt | None = None
    timeout: Duration = 4 * 3600.0
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    sbatch: Mapping[str, str | int] | None = None
    setup: list[str] | None = None
    poll: Duration = 10.0


class Slurm(Executor):
    """A SLURM cluster, seen from one of its computers.

    Args:
        config: the options.
    """

    Config: ClassVar[type[ExecutorConfig]] = SlurmConfig
    outlives_driver: ClassVar[bool] = True

    def __init__(self, config: ExecutorConfig) -> None:
        assert isinstance(config, SlurmConfig), "made by Config"
        self.config: SlurmConfig = config
        missing = [name for name in _COMMANDS if shutil.which(name) is None]
        if missing:
            raise MetabenchError(
                f"the executor 'slurm' runs on a computer of a SLURM cluster: {', '.join(missing)} not on the PATH"
            )
        self._states: dict[str, tuple[str, int]] = {}
        self._asked = -math.inf
        self._over: dict[str, Condition] = {}

    def slots(self, needs: Resources) -> None:
        """See `metabench.contracts.Executor`."""
        return

    def submit(self, tickets: Sequence[Ticket]) -> list[str]:
        """See `metabench.contracts.Executor`."""
        handles: dict[Path, str] = {}
        for _, group in groupby(sorted(tickets, key=_needs), key=_needs):
            alike = list(group)
            shares = _shares(alike, self.config.array or len(alike))
            for first in range(0, len(shares), _MOST_TASKS):
                part = shares[first : first + _MOST_TASKS]
                for share, task in zip(part, self._submit_array(part), strict=True):
                    self._states[task] = ("PENDING", 0)
                    handles.update({ticket.folder: str(Handle.of(ticket, task, len(share))) for ticket in share})
        return [handles[ticket.folder] for ticket in tickets]

    def alive(self, handles: Sequence[str]) -> dict[str, Condition]:
        """See `metabench.contracts.Executor`."""
        read = {text: Handle.read(text) for text in handles if text not in self._over}
        tasks = {handle.task for handle in read.values()}
        if read and (time.monotonic() - self._asked > self.config.poll or not tasks <= self._states.keys()):
            self._ask(sorted({handle.array for handle in read.values()}))
        conditions = {text: self._condition(handle) for text, handle in read.items()}
        self._over.update({text: one for text, one in conditions.items() if one.state in ("ended", "died")})
        return {text: self._over.get(text) or conditions[text] for text in handles}

    def cancel(self, handles: Sequence[str]) -> None:
        """See `metabench.contracts.Executor`; of a task with other jobs, only these jobs are stopped."""
        of_task: dict[str, list[Handle]] = {}
        for text in handles:
            handle = Handle.read(text)
            of_task.setdefault(handle.task, []).append(handle)
        whole = [task for task, those in of_task.items() if len(those) == those[0].shared_by]
        for task in of_task.keys() - whole:
            for handle in of_task[task]:
                handle.ask_to_stop()
        if whole:
            _call("scancel", "--quiet", *whole)

    def wait(self, seconds: float) -> None:
        """See `metabench.contracts.Executor`."""
        time.sleep(max(seconds, min(_LOOK_SECONDS, self.config.poll)))

    def close(self) -> None:
        """See `metabench.contracts.Executor`; deletes the files of tasks that have ended."""
        for text, condition in self._over.items():
            handle = Handle.read(text)
            if self._states.get(handle.task, ("", 0))[0] not in _WAITING | _RUNNING:
                handle.clear(with_messages=condition.state == "ended")

    def _submit_array(self, shares: Sequence[Sequence[Ticket]]) -> list[str]:
        """Submit an array; return SLURM's ids of its tasks.

        Raises:
            MetabenchError: sbatch refuses it.
        """
        safe = " -P" if sys.version_info >= (3, 11) else ""  # a file in the current folder hides no module
        folder, python = folder_of(shares[0][0]), shlex.quote(sys.executable) + safe
        try:
            folder.mkdir(parents=True, exist_ok=True)
            executor = submitit.SlurmExecutor(folder, max_num_timeout=_MOST_TIMEOUTS, python=python)
            executor.update_parameters(**self._parameters(shares[0][0].resources))
            return [job.job_id for job in executor.submit_array([SlurmTask(share) for share in shares])]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            said = [line for line in str(error).splitlines() if line.startswith("sbatch: ")]
            raise MetabenchError(f"SLURM refuses the jobs: {' '.join(said) or error}") from error
        except OSError as error:
            raise MetabenchError(f"cannot write to {folder}: {error.strerror or error}") from error

    def _parameters(self, needs: Resources) -> dict[str, object]:
        """Return the parameters of submitit, which are the options of sbatch."""
        config = self.config
        gpus = needs.gpus if config.gpus is None else config.gpus
        given = {
            "partition": config.partition,
            "gpus_per_node": gpus or None,
            "mem": None if needs.memory_mb is None else f"{needs.memory_mb}M",
            "account": config.account,
            "qos": config.qos,
            "constraint": config.constraint,
            "setup": config.setup,
            "array_parallelism": config.jobs or _MOST_TASKS,
            "additional_parameters": {"requeue": True, **(config.sbatch or {})},
        }
        return {
            "job_name": "metabench",
            "time": minutes(config.timeout),
            "cpus_per_task": needs.threads,
            "signal_delay_s": min(_ANNOUNCED_SECONDS, math.ceil(config.timeout / 4)),
            **{name: value for name, value in given.items() if value is not None},
        }

    def _ask(self, arrays: Sequence[str]) -> None:
        """Ask SLURM for the states of all tasks; keep the known ones where it does not answer."""
        self._asked = time.monotonic()
        command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(arrays)}"]
        said = _call(*command, "--Format=JobArrayID:40,State:20,exit_code:20")
        if said is None:
            return
        lines = [line.split() for line in said.splitlines()]
        self._states = {fields[0]: (fields[1], int(fields[2])) for fields in lines if len(fields) == 3}

    def _condition(self, handle: Handle) -> Condition:
        state, code = self._states.get(handle.task, ("", 0))
        if state in _WAITING:
            return Condition("waiting")
        end = handle.end() if state not in _RUNNING or handle.shared_by > 1 else None
        if end is not None:
            return end
        if state in _RUNNING:
            return Condition("running")
        if state == "COMPLETED":
            return Condition("ended")
        return _death(state, code, handle)


def _death(state: str, code: int, handle: Handle) -> Condition:
    """Return the condition of a job whose task has died, by SLURM's state and wait status of the task."""
    reason = _BY_MACHINE.get(state)
    if reason is None and os.waitstatus_to_exitcode(code) in _KILLED:
        reason = "its SLURM job was killed (signal 9)"
    if reason is not None:
        return Condition("died", reason, by_machine=True)
    if state == "CANCELLED":
        return Condition("died", "its SLURM job was cancelled (scancel)")
    return Condition("died", f"its SLURM job ended with state {state}: see {handle.log}")


def _needs(ticket: Ticket) -> tuple[int, int, int]:
    """Return what distinguishes arrays: all tasks of one ask for the same."""
    return ticket.resources.gpus, ticket.resources.threads, ticket.resources.memory_mb or 0


def _shares(tickets: Sequence[Ticket], count: int) -> list[list[Ticket]]:
    """Return the jobs of each task; jobs come in starting order, the longest first, and are dealt like cards."""
    return [list(tickets[number::count]) for number in range(min(count, len(tickets)))]


def _call(*command: str) -> str | None:
    """Return what a command of SLURM prints; None if it fails, but an unknown job is none."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_COMMAND_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    return done.stdout
