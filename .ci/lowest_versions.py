"""Prints the lowest version that pyproject.toml allows of each dependency, as requirements for pip.

`"numpy>=1.26"` becomes `numpy==1.26`. A dependency without such a bound is an error: nothing would show which
versions work.
"""

from __future__ import annotations

from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where mypy and pytest bring the same under this name
    import tomli as tomllib

#: Tools that check the source and run nothing of it. The newest are used, so they have no bounds.
LINT = {"mypy", "pandas-stubs", "ruff", "types-PyYAML", "types-tabulate"}
#: Names the extras again.
ITSELF = "metabench[mlflow,tensorboard]"

pyproject = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
extras = pyproject["project"]["optional-dependencies"].values()
lists = [pyproject["build-system"]["requires"], pyproject["project"]["dependencies"], *extras]
for requirement in sorted({requirement for names in lists for requirement in names} - LINT - {ITSELF}):
    name, bound = requirement.split(">=")
    print(f"{name}=={bound}")
