"""Cells of a small suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from metabench.contracts import PluginManager, Request, SuiteFile
from metabench_rl.api import Algorithm
from metabench_rl.cells import Cell
from metabench_rl.engine import MetaRL
from metabench_rl.families import make_algorithm, make_family

SMALL = Path(__file__).with_name("small.yaml")


def suite(**changes: Any) -> SuiteFile:
    """Return the small suite with some sections changed."""
    data = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
    for section, values in changes.items():
        data[section] = {**data[section], **values} if isinstance(values, dict) and section in data else values
    return SuiteFile(SMALL, data, {})


def cell(algorithm: str, **changes: Any) -> Cell:
    """Return the cell of an algorithm in the small suite, without the others: a change may not suit them."""
    file = suite(**changes)
    alone = replace(file, data={**file.data, "algorithms": {algorithm: file.data["algorithms"][algorithm]}})
    return MetaRL(PluginManager.from_environment({})).plan(alone, Request()).cells[0]


def untrained(of: Cell) -> Algorithm:
    """Return the algorithm of a cell, with weights of seed 0."""
    torch.manual_seed(0)
    return make_algorithm(of, make_family(of))


class Quiet:
    """A watcher that shows nothing, and never asks to stop."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """See `metabench.contracts.Watcher`."""

    def advance(self, done: int, note: str = "") -> None:
        """See `metabench.contracts.Watcher`."""

    def should_stop(self) -> bool:
        """See `metabench.contracts.Watcher`."""
        return False
