"""What becomes of a run: the state of each cell, by the files of its directory alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from metabench.errors import StoreError
from metabench.executors.going_run import GoingRun
from metabench.executors.heartbeat import LOST_ELSEWHERE_SECONDS, LOST_SECONDS
from metabench.executors.job_files import Claim, Progress
from metabench.executors.job_folder import JobFolder
from metabench.records.store import Store
from metabench.text import shape_text

#: waiting for its turn; running; lost: its worker has ended without a result, or is silent; the others as in a record.
State = Literal["waiting", "running", "lost", "ok", "failed", "skipped", "invalid"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class CellStatus(_Part):
    """The state of a cell.

    Attributes:
        cell: its id.
        title: one line for people.
        state: its state.
        host: computer of the worker that trains or tests it; empty where none does.
        pid: the worker's process there.
        attempt: number of the attempt; 0 where none is made.
        phase: what the worker does, e.g. ``"test"``; of a worker that was lost, did.
        done: steps or episodes done of the phase.
        total: all of them.
        note: the current loss or accuracy.
        reason: the reason of a state that is not ok.
    """

    cell: str
    title: str
    state: State
    host: str = ""
    pid: int | None = None
    attempt: int = 0
    phase: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    reason: str = ""


class RunStatus(_Part):
    """The state of a run.

    Attributes:
        run: the output directory.
        going: whether a driver goes on with it; None where that cannot be known, on another computer.
        driver: the run that goes on or was killed; None where there is none; of several that share the directory, the
            first one.
        jobs: number of submitted jobs that have neither ended nor been cancelled.
        sharing: number of processes that share the directory (``--share``); 0 where one has it alone.
        cells: all cells of its suite.
        counts: number of cells by state.
        seconds_left: expected seconds until the last of the cells that were asked for; None where unknown, or nothing
            goes on.
        expected_end: the time of that.
    """

    run: str
    going: bool | None
    driver: GoingRun | None
    jobs: int
    sharing: int
    cells: list[CellStatus]
    counts: dict[str, int]
    seconds_left: float | None
    expected_end: str | None


def status_of(output: Path) -> RunStatus:
    """Return the state of a run.

    A worker of another computer counts as lost by the times of its files, which that computer or a file server sets:
    the driver's own judgement needs no common clock, and decides alone what is tried again.

    Raises:
        StoreError: there is no run, or its files cannot be read.
    """
    store = Store(output)
    planned, records = {cell["cell"]: cell for cell in store.planned()}, store.records_by_name()
    if not planned and not records:
        raise StoreError(f"no run in {output}: give the --output of a `metabench run`")
    sharing = GoingRun.sharing(output)
    run = _together(sharing) if sharing else GoingRun.read(output)
    in_jobs = _of_jobs(output, planned)
    cells = []
    for cell in {**planned, **records}:
        record = records.get(cell)
        if cell in in_jobs:
            cells.append(in_jobs[cell])
        elif record is not None:
            title = f"{record.algorithm} · {record.dataset} · {record.backbone} · {shape_text(record.way, record.shot)}"
            title += f" · seed {record.seed}" + (" · confirmation" if record.confirms else "")
            cells.append(CellStatus(cell=cell, title=title, state=record.status, reason=record.error or ""))
        else:
            cells.append(CellStatus(cell=cell, title=_title(planned[cell]), state="waiting"))
    folders = JobFolder.all(output)
    going, jobs = _goes_on(run), sum(folder.goes_on for folder in folders)
    goes_on = going or (run is not None and run.outlives_driver and jobs > 0)
    left = _seconds_left(run, cells, {folder.key: folder.progress() for folder in folders}) if goes_on else None
    end = None if left is None else datetime.now(timezone.utc).astimezone() + timedelta(seconds=left)
    return RunStatus(
        run=str(output),
        going=going,
        driver=run,
        jobs=jobs,
        sharing=len(sharing),
        cells=cells,
        counts=dict(Counter(cell.state for cell in cells)),
        seconds_left=left,
        expected_end=None if end is None else end.isoformat(timespec="seconds"),
    )


def _together(runs: Sequence[GoingRun]) -> GoingRun:
    """Return the first of several runs that share a directory, with the slots and cells of all."""
    slots = None if any(run.slots is None for run in runs) else sum(run.slots or 0 for run in runs)
    cells = dict.fromkeys(cell for run in runs for cell in run.cells)
    expected = {cell: seconds for run in runs for cell, seconds in run.expected.items()}
    return runs[0].model_copy(update={"slots": slots, "cells": list(cells), "expected": expected})


def _goes_on(run: GoingRun | None) -> bool | None:
    """Return whether a driver is alive; None where its computer is another one."""
    if run is None:
        return False
    return not run.driver.is_dead if run.driver.is_here else None


def _of_jobs(output: Path, planned: Mapping[str, Mapping[str, str]]) -> dict[str, CellStatus]:
    """Return the cells that are in a job without a record, by id."""
    found: dict[str, CellStatus] = {}
    for folder in JobFolder.all(output):
        submitted = folder.submitted()
        if submitted is None:
            continue
        claim, progress, results = folder.claim(), folder.progress(), folder.results()
        for cell in submitted.cells:
            title = _title(planned[cell]) if cell in planned else submitted.title
            result = folder.result(results[cell]) if cell in results else None
            if result is not None:
                state: State = result.record.status
                found[cell] = CellStatus(cell=cell, title=title, state=state, reason=result.record.error or "")
                continue
            news = CellStatus(cell=cell, title=title, state="waiting", attempt=submitted.attempt)
            if claim is not None:
                news = _of_worker(news, claim, progress, _lost(folder, claim))
            found[cell] = news
    return found


def _of_worker(news: CellStatus, claim: Claim, progress: Progress | None, lost: str) -> CellStatus:
    """Return the state of a cell whose job has a worker."""
    changes: dict[str, object] = {"host": claim.host.partition(" ")[0], "pid": claim.pid, "attempt": claim.attempt}
    if lost:
        changes |= {"state": "lost", "reason": lost}
    if progress is not None and progress.cell == news.cell:  # else its job tests another cell
        changes |= progress.model_dump(include={"phase", "done", "total", "note"})
        changes.setdefault("state", "running")
    return news.model_copy(update=changes)


def _lost(folder: JobFolder, claim: Claim) -> str:
    """Return why a worker counts as lost; empty if it does not."""
    if claim.is_dead:
        return "its worker has ended without a word"
    try:
        silent = time.time() - (folder.path / "heartbeat").stat().st_mtime
    except OSError:
        return ""
    return f"no heartbeat for {silent:.0f} s" if silent > _patience(claim) else ""


def _patience(claim: Claim) -> float:
    return LOST_SECONDS if claim.is_here else LOST_ELSEWHERE_SECONDS


def _seconds_left(
    run: GoingRun | None, cells: list[CellStatus], progress: Mapping[str, Progress | None]
) -> float | None:
    """Return the expected seconds until the end, by the seconds that were expected of each cell."""
    if run is None or not run.expected:
        return None
    spent = {news.cell: news.seconds for news in progress.values() if news is not None}
    asked = set(run.cells)
    open_cells = [cell for cell in cells if cell.state in ("waiting", "running", "lost") and cell.cell in asked]
    left = [max(0.0, run.expected.get(cell.cell, 0.0) - spent.get(cell.cell, 0.0)) for cell in open_cells]
    slots = run.slots or max(1, sum(cell.state == "running" for cell in open_cells))
    return max(sum(left) / slots, max(left, default=0.0))


def _title(labels: Mapping[str, str]) -> str:
    """Return a line on a cell by its labels."""
    shape = [f"{labels['way']}-way {labels['shot']}-shot"] if {"way", "shot"} <= set(labels) else []
    names = [labels[name] for name in ("algorithm", "dataset", "backbone") if name in labels]
    return " · ".join([*names, *shape, *([f"seed {labels['seed']}"] if "seed" in labels else [])])
