"""The graph of ImageNet's classes in a `dataset_spec.json` of Meta-Dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any


def nodes_above(subgraph: Any) -> dict[str, list[str]]:
    """Return the inner nodes above each leaf of a split, sorted.

    Args:
        subgraph: an entry of ``split_subgraphs``: nodes with ``wn_id`` and ``children_ids``; leaves have no children.

    Raises:
        ValueError: it is no graph, has a circle, or a child that is no node.
    """
    try:
        children = {str(node["wn_id"]): [str(child) for child in node["children_ids"]] for node in subgraph}
    except (KeyError, TypeError) as error:
        raise ValueError("a node of split_subgraphs has no wn_id or no children_ids") from error
    unknown = next((child for found in children.values() for child in found if child not in children), None)
    if unknown is not None:
        raise ValueError(f"split_subgraphs has no node {unknown}, which is a child")
    leaves = _leaves(children)
    above: dict[str, list[str]] = {node: [] for node, found in children.items() if not found}
    for node in sorted(children.keys() - above.keys()):
        for leaf in leaves[node]:
            above[leaf].append(node)
    return above


def _leaves(children: Mapping[str, list[str]]) -> dict[str, set[str]]:
    """Return the leaves below each node, children before their parents; a leaf has itself.

    Raises:
        ValueError: the graph has a circle.
    """
    waiting = {node: len(found) for node, found in children.items()}
    parents = defaultdict[str, list[str]](list)
    for node, found in children.items():
        for child in found:
            parents[child].append(node)
    ready = [node for node, count in waiting.items() if not count]
    leaves = {node: {node} for node in ready}
    while ready:
        node = ready.pop()
        for parent in parents[node]:
            leaves.setdefault(parent, set()).update(leaves[node])
            waiting[parent] -= 1
            if not waiting[parent]:
                ready.append(parent)
    circle = next((node for node, count in waiting.items() if count), None)
    if circle is not None:
        raise ValueError(f"split_subgraphs has a circle through {circle}")
    return leaves
