"""Per-episode results in memory, for tests of tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from metabench.records.record import EpisodeResults, Record


class KeptResults:
    """Per-episode results by record, as `metabench.analysis.standings.Results`."""

    def __init__(self, of: Callable[[Record], EpisodeResults]) -> None:
        self._of = of

    def values(self, record: Record) -> npt.NDArray[np.float64]:
        return self.figures(record, record.ranked_by)

    def figures(self, record: Record, metric: str) -> npt.NDArray[np.float64]:
        return self._of(record).figures[metric][: record.primary.episodes if record.primary else 0]

    def alone(self, record: Record) -> npt.NDArray[np.float64] | None:
        return self._of(record).alone if record.transductive else self.values(record)

    def groups(self, record: Record) -> npt.NDArray[np.int64]:
        return self._of(record).groups[: record.primary.episodes if record.primary else 0]
