"""An executor unlike the built-in one: each job is a new process that its folder alone tells what to do."""

from __future__ import annotations

#: With `outlives_driver`, its processes go on when the driver has ended, and are adopted by their number.
SUBPROCESSES = """
    import json
    import os
    import signal
    import subprocess
    import sys
    from pathlib import Path

    from metabench.contracts import Condition, Executor, ExecutorConfig
    from metabench.specs import ExecutorSpec, hookimpl

    class Options(ExecutorConfig):
        '''Options.

        Attributes:
            places: jobs at once.
        '''

        places: int = 2

    class Subprocesses(Executor):
        '''New processes of this computer.'''

        Config = Options
        outlives_driver = False

        def __init__(self, config):
            self.config = config
            self.started = {}
            self.ended = {}

        def slots(self, needs):
            return self.config.jobs or self.config.places

        def submit(self, tickets):
            return [self.start(ticket) for ticket in tickets]

        def start(self, ticket):
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
            with open(ticket.folder / f"log.{ticket.attempt}", "wb") as log:
                process = subprocess.Popen(
                    ticket.command, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            handle = json.dumps({"pid": process.pid})
            self.started[handle] = process
            return handle

        def alive(self, handles):
            return {handle: condition for handle in handles if (condition := self.condition(handle))}

        def condition(self, handle):
            process = self.started.get(handle)
            if process is None:  # of another driver: its heartbeat says more
                return Condition("running") if Path(f"/proc/{json.loads(handle)['pid']}").exists() else None
            code = process.poll()
            if code is None:
                return Condition("running")
            if code == 0:
                return Condition("ended")
            return Condition("died", f"its process ended ({code})", by_machine=code == -signal.SIGKILL)

        def cancel(self, handles):
            for handle in handles:
                try:
                    os.kill(json.loads(handle)["pid"], signal.SIGTERM)
                except ProcessLookupError:
                    pass

        def close(self):
            if self.outlives_driver:
                for process in self.started.values():
                    process.returncode = process.poll() or 0  # nobody waits for it
                return
            self.cancel([handle for handle, process in self.started.items() if process.poll() is None])
            for process in self.started.values():
                process.wait(timeout=30)

    class Lasting(Subprocesses):
        '''New processes that go on without the driver.'''

        outlives_driver = True

    @hookimpl
    def metabench_executors():
        return [
            ExecutorSpec("subprocesses", f"{__name__}:Subprocesses", "a new process a job"),
            ExecutorSpec("lasting", f"{__name__}:Lasting", "a new process a job, which goes on without the driver"),
        ]
"""
