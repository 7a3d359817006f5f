"""Per-episode results in memory, for tests of tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from metabench.records.record import EpisodeResults, Record


class KeptResults:
    """Per-episode results by record, as `metabench.analysis.tables.Results`."""

    def __init__(self, of: Callable[[Record], EpisodeResults]) -> None:
        self._of = of

    def values(self, record: Record) -> npt.NDArray[np.float64]:
        return self._of(record).figures[record.ranked_by]

    def alone(self, record: Record) -> npt.NDArray[np.float64] | None:
        results = self._of(record)
        return results.alone if record.transductive else results.figures[record.ranked_by]

    def groups(self, record: Record) -> npt.NDArray[np.int64]:
        return self._of(record).groups
