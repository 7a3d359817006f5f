"""Select installed plugins by METABENCH_PLUGINS."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint

from metabench.errors import PluginError, nearest

#: Environment variable: an allow list ("mine,other") or a block list ("-mine,-other") of distributions or entry points.
PLUGINS_VARIABLE = "METABENCH_PLUGINS"


@dataclass(frozen=True)
class Selected:
    """The selected plugins.

    Attributes:
        entries: their entry points.
        hidden: a line on the distributions that are left out; empty if there are none.
    """

    entries: list[EntryPoint]
    hidden: str


def select_plugins(installed: list[EntryPoint], selection: str) -> Selected:
    """Apply an allow list or a block list.

    Args:
        installed: the entry points of all plugins.
        selection: the value of METABENCH_PLUGINS; empty takes all plugins.

    Raises:
        PluginError: the list mixes both, or names a plugin that is not installed.
    """
    chosen = _selected(installed, selection)
    # By identity: entry points of an installed backport of importlib.metadata cannot be compared with others.
    hidden = {_owner(entry) for entry in installed if not any(entry is other for other in chosen)}
    return Selected(chosen, f"{PLUGINS_VARIABLE}={selection} leaves out: {', '.join(sorted(hidden))}" if hidden else "")


def _selected(entries: list[EntryPoint], selection: str) -> list[EntryPoint]:
    """Apply an allow list or block list to entry points.

    Raises:
        PluginError: the list mixes both, or names a plugin that is not installed.
    """
    words = [word.strip() for word in selection.split(",") if word.strip()]
    if not words:
        return entries
    blocked = {word[1:] for word in words if word.startswith("-")}
    allowed = {word for word in words if not word.startswith("-")}
    if blocked and allowed:
        raise PluginError(f"{PLUGINS_VARIABLE}={selection!r} both allows and blocks: give either names, or -names")
    known = {name for entry in entries for name in _names(entry)}
    for word in sorted(blocked | allowed):
        if word not in known:
            raise PluginError(
                f"{PLUGINS_VARIABLE} names '{word}', which is not installed{nearest(word, known)}. "
                f"Installed: {', '.join(sorted(known)) or 'none'}"
            )
    if blocked:
        return [entry for entry in entries if not blocked & _names(entry)]
    return [entry for entry in entries if allowed & _names(entry)]


def _owner(entry: EntryPoint) -> str:
    """Return the name of an entry point's distribution, or of itself without one."""
    return entry.dist.name if entry.dist else entry.name


def _names(entry: EntryPoint) -> set[str]:
    """Return the names of an entry point and of its distribution."""
    return {entry.name} | ({entry.dist.name} if entry.dist else set())
