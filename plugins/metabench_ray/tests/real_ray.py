"""A real Ray of several nodes on this computer, in a network namespace of its own: everything stays on loopback."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_PORT = 6399
_OBJECT_STORE = 80_000_000  # the least that Ray takes is 75 MB


def why_not() -> str:
    """Return why no Ray can be started here, in words; empty if it can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if importlib.util.find_spec("ray") is None:
        return "ray is not installed: pip install ray"
    if shutil.which("ip") is None:
        return "there is no command `ip` (package iproute2) for a network namespace"
    if os.geteuid() != 0:
        return "only root may make a network namespace"
    name = f"metabench-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"a network namespace cannot be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def wait_for(condition: Callable[[], _T], seconds: float, awaited: str) -> _T:
    """Return the first value of a condition that is true.

    Raises:
        AssertionError: it did not within the seconds.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {awaited}"
        time.sleep(0.05)
    return value


class RealRay:
    """A Ray whose nodes are processes of this computer.

    Args:
        folder: folder for its files; short, since Ray makes sockets in it.

    Attributes:
        nodes: process ids of the raylets, one a node; the first is the head.
    """

    def __init__(self, folder: Path) -> None:
        self.nodes: list[int] = []
        self._log_monitors: dict[int, set[int]] = {}  # of each node: no child of its raylet
        self._folder, self._namespace = folder, f"metabench-{os.getpid()}"

    @property
    def address(self) -> str:
        """Return the address that drivers join."""
        return f"127.0.0.1:{_PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of all its processes and drivers."""
        own = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        found = {"PYTHONPATH": str(Path(__file__).parent)}  # jobs of tests are found on its nodes
        patient = {"RAY_raylet_start_wait_time_s": "150"}  # of a computer that does other work
        return {**os.environ, **own, **found, **patient}

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return a command that runs in the namespace."""
        return ["ip", "netns", "exec", self._namespace, *arguments]

    def start(self, nodes: int) -> None:
        """Start the head, and further nodes."""
        subprocess.run(["ip", "netns", "add", self._namespace], check=True)
        subprocess.run(self.command(["ip", "link", "set", "lo", "up"]), check=True)
        for _ in range(nodes):
            self.add_node()

    def add_node(self, hidden: Path | None = None, processors: int = 1, gpus: int = 0) -> int:
        """Start a node; return the process id of its raylet.

        Args:
            hidden: a folder whose content the node does not see: it is called ``far`` then.
            processors: number of processors that it claims to have.
            gpus: number of GPUs.
        """
        role = ["--address", self.address] if self.nodes else ["--head", "--port", str(_PORT)]
        role += [] if self.nodes else ["--include-dashboard", "false", "--temp-dir", str(self._folder)]
        before, monitors = self.processes("raylet/raylet"), self.processes("log_monitor.py")
        start = [str(Path(sys.executable).with_name("ray")), "start", *role, "--disable-usage-stats"]
        start += ["--num-cpus", str(processors), "--num-gpus", str(gpus)]
        start += ["--node-ip-address", "127.0.0.1", "--object-store-memory", str(_OBJECT_STORE)]
        if hidden is not None:  # a mount of this command's own, since `ip netns exec` makes a namespace of mounts
            hide = f"hostname far && mount -t tmpfs none {shlex.quote(str(hidden))} && exec {shlex.join(start)}"
            start = ["unshare", "--uts", "sh", "-c", hide]
        output = self._folder / "start.txt"  # no pipe: the daemons keep it open
        with open(output, "wb") as file:
            started = subprocess.run(
                self.command(start),
                env=self.environment,
                cwd=self._folder,
                check=False,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=300,
            )
        assert started.returncode == 0, output.read_text(encoding="utf-8", errors="replace")
        (raylet,) = set(self.processes("raylet/raylet")) - set(before)
        self.nodes.append(raylet)
        self._log_monitors[raylet] = set(self.processes("log_monitor.py")) - set(monitors)
        return raylet

    def kill_node(self, raylet: int) -> None:
        """Kill a node as a loss of power does: its raylet and all its processes at once."""
        for pid in [raylet, *_descendants(raylet), *self._log_monitors[raylet]]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.nodes.remove(raylet)

    def processes(self, part: str) -> list[int]:
        """Return the ids of its processes, and of drivers, whose command line has a text."""
        found = subprocess.run(["ip", "netns", "pids", self._namespace], capture_output=True, text=True, check=False)
        return [pid for pid in map(int, found.stdout.split()) if part in _command_line(pid)]

    def stop(self) -> None:
        """Kill what runs in the namespace, and delete it."""
        while pids := self.processes(""):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        subprocess.run(["ip", "netns", "del", self._namespace], check=True)


@contextmanager
def real_ray(folder: Path, nodes: int) -> Iterator[RealRay]:
    """Start a Ray; stop it at the end of the block."""
    ray = RealRay(folder)
    try:
        ray.start(nodes)
        yield ray
    finally:
        ray.stop()


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _descendants(pid: int) -> list[int]:
    """Return the ids of the processes below one, of all generations."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in _descendants(child))]
