"""metabench: the same episodes, the same clock and the same statistics for every few-shot learner.

`run`, `load_run`, `episodes` and `evaluate` are the interface of notebooks and scripts (docs/python.md). Plugin authors
import from two modules: `metabench.specs` (what a plugin announces; imports no torch) and `metabench.api` (what it
implements). Everything else is the harness.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metabench.interface import Run, episodes, evaluate, load_run, run

__version__ = version("metabench")
__all__ = ["Run", "__version__", "episodes", "evaluate", "load_run", "run"]


def __getattr__(name: str) -> Any:
    # On first use, because every module of the harness imports this one.
    if name in __all__:
        from metabench import interface

        return getattr(interface, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
