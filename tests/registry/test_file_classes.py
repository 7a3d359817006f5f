from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metabench.errors import PluginError, SuiteError
from metabench.planning.cells import Cell
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, read_suite, resolve
from metabench.records.store import Store
from metabench.registry.manager import PluginManager

IDEA = """
from metabench_plugins.algorithms.protonet import ProtoNet


class Idea(ProtoNet):
    note = "first"


number = 3
numbers = list[int]
"""

SUITE = """
name: tried
datasets: {{glyphs: {{}}}}
backbones: {{conv4: {{}}}}
algorithms: {{idea: {{use: "{use}"}}}}
ways: [2]
shots: [1]
train: {{steps: 2}}
"""


@pytest.fixture
def plan(tmp_path: Path, suite_file: Callable[[str], SuiteFile], plugins: PluginManager) -> Callable[[str], Cell]:
    """Return a function that plans a suite that uses a file beside it."""
    (tmp_path / "idea.py").write_text(IDEA, encoding="utf-8")

    def make(use: str) -> Cell:
        (cell,) = make_plan(*resolve(suite_file(SUITE.format(use=use))), plugins)
        return cell

    return make


Plan = Callable[[str], Cell]


def test_a_class_in_a_file_beside_the_suite_is_an_algorithm(
    plan: Plan, plugins: PluginManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")  # paths are relative to the suite, not to the current directory
    cell = plan("./idea.py:Idea")
    assert plugins.algorithm_class(cell.algorithm.name).__name__ == "Idea"
    assert cell.algorithm.label == "idea"
    assert cell.algorithm.params["lr"] == 0.001
    assert plan(f"{tmp_path}/idea.py:Idea").id == cell.id


def test_a_changed_file_is_imported_again_with_another_version(
    plan: Plan, plugins: PluginManager, tmp_path: Path
) -> None:
    cell = plan("./idea.py:Idea")
    before = plugins.provider("algorithm", cell.algorithm.name)
    assert re.fullmatch("idea\\.py [0-9a-f]{12}", before)
    assert plugins.algorithm_class(cell.algorithm.name) is plugins.algorithm_class(cell.algorithm.name)
    (tmp_path / "idea.py").write_text(IDEA.replace("first", "second"), encoding="utf-8")
    assert plugins.algorithm_class(cell.algorithm.name).note == "second"  # type: ignore[attr-defined]
    assert plugins.provider("algorithm", cell.algorithm.name) != before


HELPED = """
from metabench_plugins.algorithms.protonet import ProtoNet
from helper_of_idea import note


class Idea(ProtoNet):
    note = note

    def later(self=None):
        from package_of_idea import deep
        return deep.value
"""


@pytest.fixture
def helped(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a file whose neighbours import each other."""

    def write(folder: str) -> Path:
        place = tmp_path / folder
        (place / "package_of_idea").mkdir(parents=True)
        (place / "idea.py").write_text(HELPED, encoding="utf-8")
        (place / "helper_of_idea.py").write_text(
            "import second_of_idea\nnote = second_of_idea.note\n", encoding="utf-8"
        )
        (place / "second_of_idea.py").write_text(f"import helper_of_idea\nnote = {folder!r}\n", encoding="utf-8")
        (place / "package_of_idea" / "__init__.py").write_text("", encoding="utf-8")
        (place / "package_of_idea" / "deep.py").write_text("value = 5\n", encoding="utf-8")
        (place / "unused.py").write_text("raise SystemExit\n", encoding="utf-8")
        return place

    return write


def test_a_file_imports_its_neighbours(helped: Callable[[str], Path], plugins: PluginManager) -> None:
    idea: Any = plugins.algorithm_class(f"{helped('one')}/idea.py:Idea")
    assert (idea.note, idea.later()) == ("one", 5)


def test_neighbours_of_two_folders_are_not_mixed(helped: Callable[[str], Path], plugins: PluginManager) -> None:
    ideas: list[Any] = [plugins.algorithm_class(f"{helped(folder)}/idea.py:Idea") for folder in ("one", "two")]
    assert [idea.note for idea in ideas] == ["one", "two"]


@pytest.mark.parametrize("changed", ["helper_of_idea.py", "second_of_idea.py", "package_of_idea/deep.py"])
def test_a_changed_neighbour_is_another_version(
    helped: Callable[[str], Path], plugins: PluginManager, changed: str
) -> None:
    place = helped("one")
    name = f"{place}/idea.py:Idea"
    before, version = plugins.algorithm_class(name), plugins.provider("algorithm", name)
    (place / "unused.py").write_text("pass\n", encoding="utf-8")
    assert plugins.provider("algorithm", name) == version
    (place / "second_of_idea.py").write_text("note = 'new'\n", encoding="utf-8")
    idea: Any = plugins.algorithm_class(name)
    assert (idea.note, idea is before) == ("new", False)
    version = plugins.provider("algorithm", name)
    with open(place / changed, "a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert plugins.provider("algorithm", name) != version


def test_a_neighbour_does_not_replace_an_installed_module(
    helped: Callable[[str], Path], plugins: PluginManager
) -> None:
    place = helped("one")
    (place / "json.py").write_text("raise SystemExit\n", encoding="utf-8")
    (place / "helper_of_idea.py").write_text("import json\nnote = json.dumps(1)\n", encoding="utf-8")
    idea: Any = plugins.algorithm_class(f"{place}/idea.py:Idea")
    assert idea.note == "1"


def test_an_error_in_a_neighbour_names_its_file(helped: Callable[[str], Path], plugins: PluginManager) -> None:
    place = helped("one")
    (place / "second_of_idea.py").write_text("note = (\n", encoding="utf-8")
    with pytest.raises(PluginError, match=r"idea\.py:Idea cannot be imported: SyntaxError: .*second_of_idea"):
        plugins.algorithm_class(f"{place}/idea.py:Idea")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("./idea.py:Ideal", "there is no Ideal in .*idea.py"),
        ("./ideas.py:Idea", "cannot read .*ideas.py: No such file"),
        ("./idea.py:number", "idea.py:number is not a subclass of metabench.api.Algorithm"),
        ("./idea.py:numbers", "idea.py:numbers is not a subclass of metabench.api.Algorithm"),
        ("./broken.py:Idea", "broken.py:Idea cannot be imported: NameError: name 'oops' is not defined"),
    ],
)
def test_an_error_in_a_class_file_names_the_suite_line(plan: Plan, tmp_path: Path, use: str, message: str) -> None:
    (tmp_path / "broken.py").write_text("oops\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=rf"suite.yaml:5: algorithms.idea.use: .*{message}"):
        plan(use)


def test_the_stored_suite_finds_the_file_from_anywhere(
    plan: Plan, suite_file: Callable[[str], SuiteFile], plugins: PluginManager, tmp_path: Path
) -> None:
    cell = plan("./idea.py:Idea")
    suite, _ = resolve(suite_file(SUITE.format(use="./idea.py:Idea")))
    store = Store(tmp_path / "elsewhere")
    store.write_suite(suite.model_dump(mode="json", exclude={"profile"}))
    (again,) = make_plan(*resolve(read_suite(store.path / "suite.yaml")), plugins)
    assert again.id == cell.id


CONFIGS = """
from pydantic import field_validator
from metabench.api import AlgorithmConfig
from metabench_plugins.algorithms.protonet import ProtoNet
class NoModel(ProtoNet):
    Config = dict
class NoConfig(ProtoNet):
    Config = None
class Raising(AlgorithmConfig):
    @field_validator("lr")
    @classmethod
    def check(cls, value): raise KeyError("boom")
class Failing(ProtoNet):
    Config = Raising
class Unwritable(AlgorithmConfig):
    model_config = {"arbitrary_types_allowed": True}
    thing: object = object()
class NoJson(ProtoNet):
    Config = Unwritable
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoModel", "has a Config that is no subclass of metabench.api.Config: <class 'dict'>"),
        ("NoConfig", "has a Config that is no subclass of metabench.api.Config: None"),
        ("Failing", "its Config failed: KeyError: 'boom'"),
        ("NoJson", "its Config has no form as JSON: PydanticSerializationError: Unable to serialize unknown type"),
    ],
)
def test_a_config_that_cannot_be_used_is_one_message(
    suite_file: Callable[[str], SuiteFile], plugins: PluginManager, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "configs.py").write_text(CONFIGS, encoding="utf-8")
    file = suite_file(
        f"""
        name: configs
        datasets: {{glyphs: {{}}}}
        backbones: {{conv4: {{}}}}
        algorithms: {{x: {{use: './configs.py:{name}', params: {{lr: 0.1}}}}}}
        ways: [2]
        shots: [1]
        train: {{steps: 2}}
        """
    )
    with pytest.raises(SuiteError, match=re.escape(message)):
        make_plan(*resolve(file), plugins)
