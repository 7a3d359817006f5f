"""metabench: the same episodes, the same clock and the same statistics for every few-shot learner.

Plugin authors import from two modules: `metabench.specs` (what a plugin announces; imports no torch)
and `metabench.api` (what it implements). Everything else is the harness.
"""

from importlib.metadata import version

__version__ = version("metabench")
