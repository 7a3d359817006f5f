"""Task families by name; this module imports neither torch nor a simulator."""

from __future__ import annotations

import re

#: Names of families, for people.
FAMILIES = ("point2d", "ml1-NAME")
#: Steps of an episode of 2-D navigation, and most steps of one of Meta-World, by default.
NAVIGATION_STEPS, META_WORLD_STEPS = 100, 500
#: The environments of Meta-World 3.1.1, without version.
ENVIRONMENTS = (
    "assembly",
    "basketball",
    "bin-picking",
    "box-close",
    "button-press",
    "button-press-topdown",
    "button-press-topdown-wall",
    "button-press-wall",
    "coffee-button",
    "coffee-pull",
    "coffee-push",
    "dial-turn",
    "disassemble",
    "door-close",
    "door-lock",
    "door-open",
    "door-unlock",
    "drawer-close",
    "drawer-open",
    "faucet-close",
    "faucet-open",
    "hammer",
    "hand-insert",
    "handle-press",
    "handle-press-side",
    "handle-pull",
    "handle-pull-side",
    "lever-pull",
    "peg-insert-side",
    "peg-unplug-side",
    "pick-out-of-hole",
    "pick-place",
    "pick-place-wall",
    "plate-slide",
    "plate-slide-back",
    "plate-slide-back-side",
    "plate-slide-side",
    "push",
    "push-back",
    "push-wall",
    "reach",
    "reach-wall",
    "shelf-place",
    "soccer",
    "stick-pull",
    "stick-push",
    "sweep",
    "sweep-into",
    "window-close",
    "window-open",
)
#: One of Meta-World's environments, e.g. ``ml1-reach`` or ``ml1-door-open``.
_ML1 = re.compile(r"ml1-([a-z][a-z-]*[a-z])")


def longest_of(name: str) -> int:
    """Return the default horizon of a family; no longer one is possible in Meta-World."""
    return NAVIGATION_STEPS if name == "point2d" else META_WORLD_STEPS


def family_of(name: str) -> tuple[str, dict[str, str]] | None:
    """Return class and arguments of the family of a name; None if there is none."""
    if name == "point2d":
        return "metabench_rl.environments.point2d:Point2D", {}
    if found := _ML1.fullmatch(name):
        return "metabench_rl.environments.metaworld:ML1", {"environment": f"{found[1]}-v3"}
    return None
