"""A real SLURM of two nodes on this computer, with GPUs that are made up, in a folder of its own."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

#: Programs that a cluster needs: of the packages slurmctld, slurmd, slurm-client, munge and util-linux.
_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged", "setpriv")
#: Character devices 195:N, which SLURM takes for GPUs.
_NVIDIA = 195
_SETTINGS = """\
ClusterName=metabench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=3600
SlurmdTimeout=10
GresTypes=gpu
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


def why_not() -> str:
    """Return why no cluster can be started here; empty if one can."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"no SLURM: {', '.join(missing)} missing (apt-get install slurmctld slurmd slurm-client munge)"
    if os.getuid() != 0:
        return "no SLURM: only root can make device files for the GPUs that are made up"
    return ""


class Cluster:
    """A running cluster.

    Args:
        folder: its folder.
        cpus: processors of each node.
        gpus: GPUs of each node.

    Attributes:
        nodes: names of the nodes.
        environment: variables with which SLURM's commands reach this cluster.
    """

    nodes = ("n1", "n2")

    def __init__(self, folder: Path, cpus: int, gpus: int) -> None:
        self.folder = folder.resolve()
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}
        self._cpus, self._gpus = cpus, gpus
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons; return when the nodes are idle."""
        self._write_settings()
        keys = ["--key-file", "munge.key", "--seed-file", "munge.seed", "--pid-file", "munged.pid"]
        self._start("munged", "--foreground", "--force", "--socket", str(self.folder / "munge.socket"), *keys)
        wait_until((self.folder / "munge.socket").exists, "munged has a socket")
        self._start("slurmctld", "-D")
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), "the nodes are idle", 60)

    def start_node(self, node: str) -> None:
        """Start a node."""
        self._start("slurmd", "-D", "-N", node, name=node)

    def lose_node(self, node: str) -> None:
        """Kill a node with all that runs on it, as a power cut does."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()
        for _ in range(3):  # a process may fork while it is killed
            for pid, environment in self._processes():
                if environment.get("SLURMD_NODENAME") == node or self._is_step_on(pid, node):
                    _kill(pid)

    def states(self) -> dict[str, str]:
        """Return the states of the nodes, e.g. ``"idle"`` or ``"down*"``; empty where the cluster does not answer."""
        found = self.call("sinfo", "--noheader", "--Node", "--format=%N %t", check=False)
        return dict(line.split() for line in found.splitlines())

    def call(self, *command: str, check: bool = True) -> str:
        """Run a command of SLURM; return what it prints."""
        done = subprocess.run(command, check=False, env=self.environment, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}\n{self.logs()}")
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Return the states of all jobs of metabench, e.g. ``{"12_3": "RUNNING"}``."""
        found = self.call("squeue", "--noheader", "--array", "--states=all", "--name=metabench", "--format=%i %T")
        return dict(line.split() for line in found.splitlines())

    def preempt(self, node: str) -> None:
        """Submit a short job that takes a processor and a GPU of a node away from the jobs of the main partition."""
        wanted = ["--partition=urgent", f"--nodelist={node}", "--gpus-per-node=1", "--output=/dev/null"]
        self.call("sbatch", *wanted, "--wrap=true")

    def release(self) -> None:
        """Let jobs that were requeued start at once: SLURM holds them for two minutes."""
        for job, state in self.jobs().items():
            if state == "PENDING":
                self.call("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)

    def logs(self) -> str:
        """Return the last lines of the daemons' logs."""
        tails = {path.name: path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log"))}
        return "\n".join(f"--- {name}\n{tail}" for name, tail in tails.items())

    def stop(self) -> None:
        """Kill all jobs and daemons."""
        for daemon in self._daemons.values():
            daemon.kill()
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()
        while left := [pid for pid, _ in self._processes()]:
            for pid in left:
                _kill(pid)
            time.sleep(0.05)

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        # A daemon ends with this process, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", program, *arguments]
        with open(self.folder / f"{name or program}.log", "ab") as log:
            self._daemons[name or program] = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _write_settings(self) -> None:
        (self.folder / "state").mkdir(parents=True)
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        host, ports = platform.node(), _free_ports(1 + len(self.nodes))
        lines = [_SETTINGS.format(host=host, port=ports[0], folder=self.folder)]
        for node, port in zip(self.nodes, ports[1:], strict=True):
            (self.folder / f"spool-{node}").mkdir()
            place = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            lines.insert(0, f"NodeName={node} {place} CPUs={self._cpus} RealMemory=4000 Gres=gpu:{self._gpus}\n")
        (self.folder / "slurm.conf").write_text("".join(lines))
        for number in range(self._gpus):
            os.mknod(self.folder / f"nvidia{number}", 0o600 | stat.S_IFCHR, os.makedev(_NVIDIA, number))
        files = f"File={self.folder}/nvidia[0-{self._gpus - 1}]"
        (self.folder / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu {files} Flags=nvidia_gpu_env\n")

    def _processes(self) -> Iterator[tuple[int, Mapping[str, str]]]:
        """Yield all other processes of this cluster and their variables; jobs inherit SLURM_CONF, too."""
        for path in Path("/proc").iterdir():
            if path.name.isdecimal() and int(path.name) != os.getpid():
                with suppress(OSError):
                    environment = dict(
                        line.split("=", 1)
                        for line in (path / "environ").read_text(errors="replace").split("\0")
                        if "=" in line
                    )
                    if environment.get("SLURM_CONF") == self.environment["SLURM_CONF"] and _runs(path):
                        yield int(path.name), environment

    def _is_step_on(self, pid: int, node: str) -> bool:
        """Return whether a process is the parent of a job's processes on a node."""
        children = Path(f"/proc/{pid}/task/{pid}/children")
        with suppress(OSError):
            for child in children.read_text().split():
                environ = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                if f"SLURMD_NODENAME={node}".encode() in environ:
                    return Path(f"/proc/{pid}/comm").read_text().startswith("slurmstepd")
        return False


@contextmanager
def running_cluster(folder: Path, cpus: int = 2, gpus: int = 2) -> Iterator[Cluster]:
    """Start a cluster of two nodes; stop it with all its jobs."""
    cluster = Cluster(folder, cpus, gpus)
    try:
        cluster.start()
        yield cluster
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{cluster.logs()}") from error
    finally:
        cluster.stop()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it does not come.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _runs(path: Path) -> bool:
    """Return whether a process has not ended, which its parent may not have noticed."""
    return " Z " not in (path / "stat").read_text().rpartition(")")[2][:3]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
