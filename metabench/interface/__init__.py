"""The Python interface: runs, their results, episodes and evaluations, for notebooks and scripts."""

from metabench.interface.datasets import episodes
from metabench.interface.evaluation import evaluate
from metabench.interface.results import Run, load_run
from metabench.interface.suites import run

__all__ = ["Run", "episodes", "evaluate", "load_run", "run"]
