"""The engine keeps the contract, and refuses wrong suites with file and line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cells_for_tests import SMALL, cell

from metabench.testing import EngineChecks


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Return the command `metabench` as it ended."""
    command = [sys.executable, "-c", "from metabench.cli import script; script()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class TestMetaRL(EngineChecks):
    suite = "small.yaml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  scripted: {}",
            "  script: {}",
            "small.yaml:13: algorithms.script: no algorithm 'script' (did you mean 'scripted'?)",
        ),
        (
            "hidden: 8, ep",
            "hiden: 8, ep",
            "small.yaml:9: algorithms.maml-ppo.params.hiden: unknown key 'hiden' (did you mean",
        ),
        ("  point2d:", "  point3d:", "small.yaml:4: tasks.point3d: no task family 'point3d' (did you mean 'point2d'?)"),
        ("rounds: 2", "rounds: 0", "small.yaml:5: adapt.rounds: input should be greater than 0, not 0"),
        ("env_steps: 3_000, ", "", "small.yaml:6: train: the key 'env_steps' is missing"),
    ],
)
def test_a_wrong_suite_is_refused_with_file_line_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = SMALL.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "small.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    refused = ended("validate", str(path))
    assert refused.returncode == 2
    assert message in refused.stderr


@pytest.mark.parametrize("name", ["rl-quick", "rl-reach"])
@pytest.mark.parametrize("profile", ["", "smoke"])
def test_the_suites_are_valid_in_all_profiles(name: str, profile: str) -> None:
    planned = ended("run", name, "--dry-run", "--profile", profile)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.endswith("5 cells\n")


def test_the_documented_suite_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reinforcement-learning.md").read_text(encoding="utf-8")
    path = tmp_path / "documented.yaml"
    path.write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    planned = ended("validate", str(path))
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout == f"{path}: no profile: 13 cells, valid\n"


def test_budget_family_and_parameters_are_part_of_a_cell_and_untrained_cells_have_no_budget() -> None:
    assert cell("rl2").id != cell("rl2", train={"env_steps": 4_000}).id
    assert cell("rl2").id != cell("rl2", tasks={"point2d": {"horizon": 20}}).id
    assert cell("rl2").id != cell("rl2", algorithms={"rl2": {"params": {"hidden": 9}}}).id
    assert cell("random").id == cell("random", train={"env_steps": 4_000}).id
