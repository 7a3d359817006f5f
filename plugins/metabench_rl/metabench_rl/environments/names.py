"""Task families by name; this module imports neither torch nor a simulator."""

from __future__ import annotations

import re

#: Names of families, for people.
FAMILIES = ("point2d", "ml1-NAME")
#: One of Meta-World's environments, e.g. ``ml1-reach`` or ``ml1-door-open``.
_ML1 = re.compile(r"ml1-([a-z][a-z-]*[a-z])")


def family_of(name: str) -> tuple[str, dict[str, str]] | None:
    """Return class and arguments of the family of a name; None if there is none."""
    if name == "point2d":
        return "metabench_rl.environments.point2d:Point2D", {}
    if found := _ML1.fullmatch(name):
        return "metabench_rl.environments.metaworld:ML1", {"environment": f"{found[1]}-v3"}
    return None
