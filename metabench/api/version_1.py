"""Recognise plugins that are written for version 1 of the API."""

from __future__ import annotations

#: Names that `metabench.api` no longer has.
REMOVED = frozenset({"EmbeddingAlgorithm", "OptimisedAlgorithm"})
#: Methods of version 1, which nothing calls any more.
_METHODS = ("predict", "predict_alone", "meta_step", "episode_scores", "feature_scores")

_ADVICE = (
    "write adapt(support) and answer(state, query), and train_step(episodes) instead of meta_step(episodes); "
    'docs/plugins.md says how ("From version 1 of the API")'
)


def removed(name: str) -> str:
    """Return the message about a name that `metabench.api` no longer has."""
    return f"{name} belongs to version 1 of the plugin API: subclass Algorithm, {_ADVICE}"


def version_1_problem(cls: type) -> str:
    """Return what to change in an algorithm's class written for version 1; empty if it is not."""
    methods = [name for name in _METHODS if hasattr(cls, name)]
    if not methods or not getattr(cls, "__abstractmethods__", None):
        return ""
    return f"it is written for version 1 of the plugin API (it defines {', '.join(methods)}): {_ADVICE}"
