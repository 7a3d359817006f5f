"""Recognise plugins that are written for version 1 of the API."""

from __future__ import annotations

#: Names that `metabench.api` no longer has.
REMOVED = frozenset({"EmbeddingAlgorithm", "OptimisedAlgorithm"})
#: Methods of version 1, which nothing calls any more; a class of version 2 may have others of the last two names.
_METHODS = ("meta_step", "episode_scores", "feature_scores", "predict", "predict_alone")

_ADVICE = (
    "write adapt(support) and answer(state, query), and train_step(episodes) instead of meta_step(episodes); "
    'docs/plugins.md says how ("From version 1 of the API")'
)


def removed(name: str) -> str:
    """Return the message about a name that `metabench.api` no longer has."""
    return f"{name} belongs to version 1 of the plugin API: subclass Algorithm, {_ADVICE}"


def version_1_problem(cls: type) -> str:
    """Return what to change in an algorithm's class written for version 1; empty if it is not."""
    complete = not getattr(cls, "__abstractmethods__", None)
    methods = [name for name in _METHODS[: 3 if complete else None] if hasattr(cls, name)]
    if not methods:
        return ""
    return f"it is written for version 1 of the plugin API (it defines {', '.join(methods)}): {_ADVICE}"
