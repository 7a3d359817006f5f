from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metabench.registry.code import code_hash
from metabench.registry.file_classes import FileClasses

if TYPE_CHECKING:
    from conftest import Distributions


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of an importable package of several modules."""
    folder = tmp_path / "src" / "hashed"
    (folder / "parts").mkdir(parents=True)
    sources = {
        "__init__.py": "",
        "main.py": "import numpy\nfrom hashed.parts import near\nclass Main: pass\n",
        "parts/__init__.py": "",
        "parts/near.py": "from . import far\nfrom ..siblings import word\n",
        "parts/far.py": "x = 1\n",
        "siblings.py": "def word():\n    from hashed import late\n",
        "late.py": "",
        "unused.py": "raise SystemExit('imported')\n",
    }
    for name, source in sources.items():
        (folder / name).write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "hashed"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ("main.py", True),
        ("__init__.py", True),
        ("parts/__init__.py", True),
        ("parts/near.py", True),
        ("parts/far.py", True),
        ("siblings.py", True),
        ("late.py", True),
        ("unused.py", False),
    ],
)
def test_the_hash_covers_what_the_module_imports_of_its_own(package: Path, changed: str, counts: bool) -> None:
    before = code_hash("hashed.main:Main")
    assert code_hash("hashed.main:Main") == before
    path = package / changed
    path.write_text(path.read_text(encoding="utf-8") + "\ny = 2\n", encoding="utf-8")
    assert (code_hash("hashed.main:Main") != before) is counts
    assert not any(name.startswith("hashed") for name in sys.modules), "nothing is imported"


def test_a_class_and_its_name_have_the_same_hash(package: Path) -> None:
    before = code_hash("hashed.main")
    cls = importlib.import_module("hashed.main").Main
    assert code_hash(cls) == code_hash("hashed.main:Main") == before


def test_the_hash_depends_neither_on_the_folder_nor_on_line_ends(tmp_path: Path) -> None:
    hashes = []
    for name, end in (("one", "\n"), ("two", "\r\n")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "idea.py").write_bytes(f"import helper{end}class Idea: pass{end}".encode())
        (folder / "helper.py").write_bytes(f"x = 1{end}".encode())
        (folder / "idle.py").write_bytes(name.encode())
        sys.path.insert(0, str(folder))
        try:
            hashes.append(code_hash(FileClasses().load(f"{folder}/idea.py:Idea")))
        finally:
            sys.path.remove(str(folder))
            del sys.modules["helper"]
    assert hashes[0] == hashes[1]
    (tmp_path / "two" / "helper.py").write_text("x = 2", encoding="utf-8")
    assert code_hash(FileClasses().load(f"{tmp_path / 'two' / 'idea.py'}:Idea")) != hashes[0]


def test_distributions_in_one_folder_are_not_hashed_together(
    distributions: Distributions, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = distributions.add("one", "import fake_two\n")
    distributions.add("two", "")
    in_source = code_hash(one)
    monkeypatch.setattr("metabench.registry.code._install_folders", lambda: {distributions.folder.resolve()})
    installed = code_hash(one)
    (distributions.folder / "fake_two.py").write_text("x = 1\n", encoding="utf-8")
    assert code_hash(one) == installed
    monkeypatch.undo()
    assert in_source != installed


def test_code_without_a_file_has_a_hash() -> None:
    assert code_hash("no_such_module.at_all") == code_hash(type("Made", (), {"__module__": "nowhere"}))
