"""The engine keeps the contract, and refuses wrong suites with file and line."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from cells_for_tests import SMALL, Quiet, cell, suite

from metabench.contracts import PluginManager, Request, Store
from metabench.testing import EngineChecks
from metabench_rl.engine import MetaRL


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
        (
            "env_steps: 3_000",
            "env_steps: 300",
            "small.yaml:6: train.env_steps: 300 steps pay no update of 'maml-ppo' on point2d, which takes 240",
        ),
        (
            "validation: 2, test: 6",
            "validation: 2, test: 6, train: 3",
            "small.yaml:4: tasks.point2d.train: an update of 'maml-ppo' takes 4 tasks, and there are 3",
        ),
        (
            "  point2d: {horizon: 10,",
            "  ml1-rech: {horizon: 10,",
            "small.yaml:4: tasks.ml1-rech: Meta-World has no environment 'rech' (did you mean 'reach'?)",
        ),
        (
            "  point2d: {horizon: 10,",
            "  ml1-reach: {horizon: 501,",
            "small.yaml:4: tasks.ml1-reach.horizon: an episode of Meta-World has at most 500 steps, not 501",
        ),
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


@pytest.mark.parametrize("profile", ["", "smoke", "quick"])
def test_imitation_is_planned_in_all_profiles(profile: str) -> None:
    planned = ended("run", "imitation", "--dry-run", "--profile", profile)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.endswith("44 cells\n")


def test_the_documented_suite_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reinforcement-learning.md").read_text(encoding="utf-8")
    path = tmp_path / "documented.yaml"
    path.write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    planned = ended("validate", str(path))
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout == f"{path}: no profile: 13 cells, valid\n"


def test_budget_family_and_parameters_are_part_of_a_cell_and_untrained_cells_have_no_budget() -> None:
    assert cell("rl2").id != cell("rl2", train={"env_steps": 4_000}).id
    assert cell("rl2").id != cell("rl2", tasks={"point2d": {"horizon": 9, "validation": 2}}).id
    assert cell("rl2").id != cell("rl2", algorithms={"rl2": {"params": {"hidden": 9}}}).id
    assert cell("random").id == cell("random", train={"env_steps": 4_000}).id


def test_a_worker_with_other_code_refuses_the_cell(tmp_path: Path) -> None:
    plan = MetaRL(PluginManager.from_environment({})).plan(suite(), Request())
    work = plan.prepare(plan.cells, {}, Store(tmp_path), nullcontext)
    job = replace(work.jobs()[-1], executor="slurm")
    (ran,) = job.run(Quiet())
    assert ran.record.status == "ok"
    assert ran.record.circumstances is not None
    assert ran.record.circumstances.executor == "slurm"
    other = replace(job, origin={**job.origin, "algorithm": "older"})
    (refused,) = other.run(Quiet())
    assert refused.record.status == "failed"
    assert "older in the run's plan: install the same there" in str(refused.record.error)


def test_a_default_horizon_that_is_spelt_out_gives_the_same_cell() -> None:
    assert cell("rl2", tasks={"point2d": {"horizon": 100}}, train={"env_steps": 90_000}).id == (
        cell("rl2", tasks={"point2d": {}}, train={"env_steps": 90_000}).id
    )
