"""Plan tests of the same weights on other episodes, which confirm a result."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from metabench.errors import UsageError
from metabench.planning.cells import Cell


def with_confirmations(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of a suite, then one for each that tests its weights once more, on other test episodes.

    Floors, which are neither ranked nor compared, are not confirmed.

    Raises:
        UsageError: the test episodes are those of a file.
    """
    for cell in cells:
        if cell.test.file is not None:
            raise UsageError(
                f"--confirm: the test episodes are those of {cell.test.file.path.name}, and there are no others: leave "
                "out --confirm or eval.episodes_file"
            )
    return [*cells, *(again for cell in cells if (again := confirmed_by(cell)) is not None)]


def confirming_seed(seed: int) -> int:
    """Return the seed of the episodes that confirm those of another seed: its hash, so that nobody chooses it."""
    return int.from_bytes(hashlib.sha256(f"{seed}|confirmation".encode()).digest()[:4], "little") >> 1


def confirmed_by(cell: Cell) -> Cell | None:
    """Return the cell that tests the weights of another once more; None of floors and of fixed episodes."""
    if cell.floor or cell.test.file is not None:
        return None
    return replace(cell, test=replace(cell.test, seed=confirming_seed(cell.test.seed)), confirms=cell.id)
