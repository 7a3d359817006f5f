"""`metabench cancel`: end the jobs of a run that go on without it."""

from __future__ import annotations

from pathlib import Path

import click

from metabench.cli.streams import say
from metabench.text import counted


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="RUN")
def cancel(directory: Path) -> None:
    """End the jobs of the output directory RUN that go on without the command that has submitted them.

    Each writes a checkpoint first. `metabench run` goes on from there.
    """
    from metabench.errors import StoreError, UsageError
    from metabench.executors.choosing import restored_executor
    from metabench.executors.going_run import GoingRun
    from metabench.executors.job_folder import JobFolder
    from metabench.registry.manager import PluginManager

    run, folders = GoingRun.read(directory), JobFolder.all(directory)
    if run is None or not folders:
        raise StoreError(f"nothing runs in {directory}")
    if not run.outlives_driver:
        raise UsageError(
            f"the jobs in {directory} are processes of the command that runs them, and end with it: press Ctrl-C "
            f"there, or send SIGINT to process {run.driver.pid} on {run.host}"
        )
    executor = restored_executor(run.executor, run.options, PluginManager.from_environment())
    handles = []
    for folder in folders:
        handle = folder.handle()
        if handle is not None and folder.goes_on:
            folder.cancel()
            handles.append(handle)
    executor.cancel(handles)
    executor.close()
    if not handles:
        say("no job goes on: the same `metabench run` command makes the records of the jobs that have ended")
        return
    say(f"{counted(len(handles), 'job')} cancelled: the same `metabench run` command goes on from their checkpoints")
