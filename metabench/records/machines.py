"""The machine that a cell ran on, and what else ran there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metabench.records.values import Count, Part, Text


class Machine(Part):
    """The machine and its share that a cell had; costs are compared between equal machines only.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``; ``"unknown"`` of results of other code.
        name: name of the processor or the GPU.
        threads: threads that torch computed in, on a CPU; None on a GPU.
        cells_at_once: number of cells that ran at the same time.
    """

    kind: Literal["cpu", "cuda", "unknown"]
    name: Text
    threads: Count | None = None
    cells_at_once: Count = 1

    def __str__(self) -> str:
        """Return a line for people, e.g. ``"AMD EPYC, 2 threads, 2 cells at once"``."""
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads != 1 else ''}"
        return self.name + threads + (f", {self.cells_at_once} cells at once" if self.cells_at_once > 1 else "")


class Circumstances(Part):
    """Where and beside what a cell ran: times of different hosts and loads are not compared without a remark.

    Attributes:
        host: name of the computer.
        processors: number of its processors.
        executor: name of the executor that ran it; empty in this process, and in records of earlier versions.
        gpu: UUID of the GPU, as the worker saw it; empty of a CPU, and where CUDA does not say.
        niceness: niceness of the process; None where the system has none.
        load_start: programs that ran or waited on the whole computer, mean of a minute, when the training began (the
            test, where its weights were there); None where the system does not say.
        load_end: the same when the test ended.
    """

    host: Text
    processors: Count | None = None
    executor: Text = ""
    gpu: Text = ""
    niceness: int | None = None
    load_start: Annotated[float, Field(ge=0)] | None = None
    load_end: Annotated[float, Field(ge=0)] | None = None

    @property
    def busiest(self) -> float | None:
        """Return the larger load; None where neither is known."""
        return max((load for load in (self.load_start, self.load_end) if load is not None), default=None)
