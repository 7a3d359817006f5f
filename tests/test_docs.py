"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from metabench.cli import cli
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import read_suite, resolve
from metabench.records.record import Record
from metabench.records.store import Store
from metabench.registry import hookspecs
from metabench.registry.configs import search_space
from metabench.registry.manager import PluginManager
from test_architecture import ORDER

if TYPE_CHECKING:
    from conftest import Distributions

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)


def test_every_hook_is_documented_with_its_signature() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    hooks = {
        name: f"{name}({', '.join(inspect.signature(function).parameters)})"
        for name, function in vars(hookspecs).items()
        if name.startswith("metabench_")
    }
    documented = re.findall(r"^\| `(metabench_\w+\(.*?\))` \|", page, re.M)
    assert sorted(documented) == sorted(hooks.values())


def test_the_readme_and_the_plugin_page_show_the_same_algorithm() -> None:
    assert blocks("README.md", "python")[0] == blocks("docs/plugins.md", "python")[0]


def test_the_documented_suite_is_valid_in_all_its_profiles(tmp_path: Path) -> None:
    path = tmp_path / "documented.yaml"
    path.write_text(blocks("docs/suites.md", "yaml")[0], encoding="utf-8")
    file = read_suite(path)
    plugins = PluginManager.from_environment()
    assert [len(make_plan(*resolve(file, profile), plugins)) for profile in ["", *file.profiles]] == [4, 2]


def test_the_pages_of_methods_say_what_classes_and_results_say() -> None:
    spec = importlib.util.spec_from_file_location("method_pages", ROOT / "docs" / "method_pages.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    written = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "methods").iterdir()}
    assert written == maker.pages(), "run `python docs/method_pages.py`"


def test_every_key_of_a_record_is_documented() -> None:
    page = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    for name in Record.model_fields:
        assert f"`{name}" in page, f"docs/records.md does not mention {name}"


def test_the_suite_page_lists_every_key() -> None:
    from metabench.planning.suite import Evaluation, Suite, Train

    page = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
    keys = [*Suite.model_fields, *Train.model_fields, *Evaluation.model_fields]
    for key in keys:
        if key != "profile":
            assert re.search(rf"\b{key}\b", page), f"docs/suites.md does not mention {key}"


def test_the_documented_search_space_is_that_of_its_parameters() -> None:
    documented: dict[str, Any] = {"__name__": "documented"}
    exec(blocks("docs/tuning.md", "python")[0], documented)
    assert set(search_space(documented["MyConfig"])) == {"lr", "temperature", "steps", "distance"}


def test_the_documented_search_is_of_a_suite_that_is_installed() -> None:
    commands = [shlex.split(line) for line in blocks("docs/tuning.md", "sh")[0].splitlines()]
    name = next(words[2] for words in commands if words[:2] == ["metabench", "tune"])
    suite, _ = resolve(read_suite(PluginManager.from_environment().suite_path(name)))
    assert suite.name == name


def test_the_documented_plugin_runs_in_a_suite(
    tmp_path: Path, distributions: Distributions, glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = blocks("docs/plugins.md", "python")[0].replace('"cosine:', '"fake_metabench_cosine:')
    distributions.add("metabench-cosine", source)
    suite = {
        "name": "documented",
        "datasets": {"glyphs": {}},
        "backbones": {"conv4": {"params": {"channels": 8, "downsample": "stride"}}},
        "algorithms": {"cosineproto": {"train": {"way": 10}}},
        "ways": [5],
        "shots": [1],
        "queries": 5,
        "train": {"steps": 30, "validate_every": 15, "validation_episodes": 10},
        "eval": {"episodes": 50},
    }
    path = tmp_path / "documented.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    monkeypatch.setenv("METABENCH_CACHE", str(glyphs_cache))
    result = CliRunner().invoke(cli, ["run", str(path), "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    (record,) = Store(tmp_path / "out").records()
    assert record.environment["providers"]["algorithm"] == "metabench-cosine 1.0"
    assert record.primary is not None
    assert record.primary.value > 0.3, "30 steps are enough to be above chance, 0.2"


def test_the_documented_packaging_names_the_module() -> None:
    toml = blocks("docs/plugins.md", "toml")[0]
    assert '[project.entry-points.metabench]\ncosine = "cosine"' in toml


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_ci_runs_the_test_command_of_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- command: tests -->" in ci
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"<!-- command: (\w+) -->\n```sh\n(.+)\n```", readme)
    assert [name for name, _ in commands] == ["quickstart", "tests"]
    assert all("\n" not in command and shlex.split(command) for _, command in commands)
    assert yaml.safe_load((ROOT / "suites" / "quickstart.yaml").read_text(encoding="utf-8"))["name"] == "quickstart"


@pytest.mark.parametrize("name", ["workflow.yml", "submissions.yml"])
def test_the_workflows_to_copy_run_commands_that_exist(name: str) -> None:
    workflow = yaml.safe_load((ROOT / "docs" / name).read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    scripts = [line for step in steps if "run" in step for line in step["run"].splitlines()]
    lines = [line for line in scripts if re.search(r"(^|\s)metabench \w", line) and "pip install" not in line]
    assert len(lines) >= 2
    for line in lines:
        _, _, arguments = line.partition("metabench ")
        command, *options = shlex.split(re.split(r"[|>&]", arguments)[0])
        known = {option for parameter in cli.commands[command].params for option in parameter.opts}
        assert {option for option in options if option.startswith("-")} <= known, line


def test_the_container_installs_what_the_page_says() -> None:
    (packages,) = re.findall(
        r'pip install (torch torchvision) --index-url "\$TORCH_INDEX"', blocks("docs/installing.md", "sh")[1]
    )
    containerfile = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert re.findall(r"pip install --no-cache-dir (torch[^$]*) \$", containerfile) == [packages]
    (argument,) = re.findall(r"--build-arg (\w+)=", blocks("docs/installing.md", "sh")[2])
    assert f"ARG {argument}=" in containerfile
    assert f'${{{argument}:+--index-url "${argument}"}}' in containerfile
    assert re.search(r"^FROM python:3\.\d+-slim$", containerfile, re.M)
    assert re.search(r"^USER user$", containerfile, re.M)


def test_the_map_names_every_package_and_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = re.search(r"\| package \| modules \| what it owns \|\n(.*?)\n\n", page, re.S)
    assert table is not None
    documented: dict[str, set[str]] = {}
    for row in table[1].splitlines()[1:]:
        packages, modules = (re.findall(r"`(\w+)`", column) for column in row.split("|")[1:3])
        documented |= {package: set(modules) for package in packages}
    assert list(documented) == ORDER
    present = {path.stem: modules_in(path) for path in (ROOT / "metabench").iterdir() if path.stem in documented}
    assert documented == present


def modules_in(package: Path) -> set[str]:
    """Return the modules and packages in a package; none for a module."""
    names = {path.stem for path in package.glob("*.py")} | {path.parent.stem for path in package.glob("*/__init__.py")}
    return names - {"__init__"}
