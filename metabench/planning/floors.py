"""Add floors to a suite: methods without training that every other one must beat."""

from __future__ import annotations

from metabench.planning.suite import AlgorithmEntry, Suite
from metabench.registry.manager import PluginManager


def with_floors(suite: Suite, plugins: PluginManager) -> tuple[Suite, frozenset[str]]:
    """Return the suite with the floors that it asks for, and their labels.

    Args:
        suite: the resolved suite.
        plugins: the provider of the algorithms.
    """
    if not suite.floors:
        return suite, frozenset()
    names = [name for name, spec in plugins.algorithms().items() if spec.floor and name not in suite.algorithms]
    floors = {name: AlgorithmEntry.model_validate({"train": "none"}) for name in names}
    return suite.model_copy(update={"algorithms": {**suite.algorithms, **floors}}), frozenset(names)
