"""Prints the lowest version that pyproject.toml allows of each dependency, as requirements for pip.

`"numpy>=1.26"` becomes `numpy==1.26`. A dependency without such a bound is an error: nothing would show which
versions work.
"""

from __future__ import annotations

from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same as tomli
    import tomli as tomllib

#: They check the types, and no test needs them. The newest are used, so they have no bounds.
TYPES = {"mypy", "pandas-stubs", "types-PyYAML", "types-tabulate"}
#: The start of the requirement that names the extras again.
ITSELF = "metabench["

pyproject = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
extras = pyproject["project"]["optional-dependencies"].values()
lists = [pyproject["build-system"]["requires"], pyproject["project"]["dependencies"], *extras]
for requirement in sorted({requirement for names in lists for requirement in names} - TYPES):
    if not requirement.startswith(ITSELF):
        name, bound = requirement.split(">=")
        print(f"{name}=={bound}")
