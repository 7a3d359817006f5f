"""Who imports whom, and when."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import metabench
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store

BUILT_IN = {
    *("classifier", "classifier-cosine", "maml", "matchingnet", "pretrained", "protonet", "reptile", "rfs", "siamese"),
    *("simpleshot", "bd-cspn", "finetuning", "laplacianshot", "logistic-regression", "nearest-mean", "pt-map", "ridge"),
    *("tim", "tip-adapter", "transductive-finetuning"),
}
CORE = Path(metabench.__file__).parent
#: The packages and top-level modules of the core. Each imports only from those before it.
ORDER = [
    "text",
    "errors",
    "files",
    "filters",
    "specs",
    "row_files",
    "packs",
    "machine",
    "api",
    "registry",
    "data",
    "planning",
    "records",
    "analysis",
    "engine",
    "contracts",
    "executors",
    "jobs",
    "reporting",
    "tuning",
    "learners",
    "exchange",
    "verification",
    "conformance",
    "scaffold",
    "testing",
    "pytest_plugin",
    "cli",
    "interface",
]
#: What plugins may import, as docs/plugins.md says; everything else may change without notice.
PUBLIC = {"metabench.api", "metabench.contracts", "metabench.jobs", "metabench.specs", "metabench.testing"}

#: What metabench-ray imports beside, which is released with the core: a node starts a job as this computer does.
OF_RAY = {"metabench.errors", "metabench.files", "metabench.executors.local", "metabench.executors.job_folder"}


def core_modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(CORE.rglob("*.py")):
        parts = path.relative_to(CORE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield every module that is imported anywhere in the tree, and the names taken from it as modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(tree: ast.Module) -> ast.Module:
    """Return what runs when the module is imported: no functions, and nothing for type checkers alone."""

    class Pruner(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Pruner().visit(ast.parse(ast.unparse(tree)))  # type: ignore[no-any-return]


def test_the_core_never_imports_the_built_ins() -> None:
    modules = core_modules()
    assert len(modules) > 20
    guilty = [
        name
        for name, tree in modules.items()
        if any(module.split(".")[0] == "metabench_plugins" for module in imported(tree))
    ]
    assert guilty == []


def test_the_core_and_the_built_ins_import_no_simulator() -> None:
    built_ins = CORE.parent / "plugins" / "metabench_plugins"
    trees = [*core_modules().values(), *(ast.parse(path.read_text("utf-8")) for path in built_ins.rglob("*.py"))]
    used = {module.split(".")[0] for tree in trees for module in imported(tree)}
    assert "torch" in used
    assert used & {"gymnasium", "gym", "metaworld", "mujoco", "metabench_rl"} == set()


def test_the_core_names_no_algorithm_backbone_or_dataset() -> None:
    named = BUILT_IN | {
        "conv4",
        "resnet12",
        "timm",
        "mlp",
        "metadataset",
        "omniglot",
        "omniglot-runs",
        "glyphs",
        "sinusoid",
    }
    guilty = set()
    for name, tree in core_modules().items():
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        guilty |= {
            (name, node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and id(node) not in documented and node.value in named
        }
    assert guilty == set()


def test_every_package_of_the_core_is_ranked() -> None:
    found = {path.stem for path in CORE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found - {"__init__"} == set(ORDER)


def package_of(module: str) -> str:
    """Return the package or top-level module of the core that a module is part of; empty for the core itself."""
    return module.split(".")[1] if "." in module else ""


def test_packages_import_only_from_those_before_them() -> None:
    rank = {"": -1, **{package: rank for rank, package in enumerate(ORDER)}}
    modules = core_modules()
    # The face of the package shows the interface, and imports it on first use.
    face = modules.pop("metabench")
    assert {package_of(used) for used in imported(face) if used.split(".")[0] == "metabench"} <= {"", "interface"}
    assert list(imported(at_import(face))) == [
        "importlib.metadata",
        "importlib.metadata.version",
        *("typing", "typing.TYPE_CHECKING", "typing.Any"),
    ]
    for name, tree in modules.items():
        for used in imported(tree):
            if used.split(".")[0] == "metabench" and package_of(used) in rank:
                assert rank[package_of(used)] <= rank[package_of(name)], f"{name} imports {used}, which comes later"


def test_imports_go_in_no_circle() -> None:
    modules = core_modules()
    # `import metabench.x` runs the package's __init__ first, so no edge to the package itself is a circle.
    edges = {
        name: {module for module in imported(at_import(tree)) if module in modules and module != name}
        for name, tree in modules.items()
    }
    seen: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"imports go in a circle: {' → '.join((*path, name))}"
        if name not in seen:
            for used in edges[name]:
                visit(used, (*path, name))
            seen.append(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("folder", ["plugins", "metabench/scaffold/templates"])
def test_plugins_import_only_what_is_public(folder: str) -> None:
    root = CORE.parent
    files = [path for path in (root / folder).rglob("*") if path.suffix == ".py" or path.name.endswith(".py.jinja")]
    assert len(files) > 5
    for path in files:
        text = path.read_text(encoding="utf-8")
        for module, name in re.findall(r"^ *(?:from|import) (metabench\b[.\w]*)(?: import (\w+))?", text, re.MULTILINE):
            found = f"metabench.{name}" if module == "metabench" else module
            allowed = PUBLIC | (OF_RAY if "metabench_ray" in path.parts else set())
            assert found in allowed, f"{path} imports {found}"


def test_the_documentation_of_plugins_names_what_is_public() -> None:
    page = (CORE.parent / "docs" / "plugins.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"^A plugin imports from (.*?) only", page, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`([\w.]+)`", said)) == PUBLIC


def test_importing_metabench_imports_neither_torch_nor_the_interface() -> None:
    script = (
        "import sys, metabench\n"
        "assert {'episodes', 'evaluate', 'load_run', 'run'} <= set(dir(metabench))\n"
        "before = set(sys.modules)\n"
        "assert not {'torch', 'numpy', 'pandas', 'metabench.interface'} & before\n"
        "assert callable(metabench.run) and callable(metabench.load_run) and callable(metabench.episodes)\n"
        "assert not {'torch', 'pandas', 'bokeh', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "--help"], ["leaderboard"], ["data", "list"]])
def test_commands_that_compute_nothing_import_no_torch(
    arguments: list[str],
    tmp_path: Path,
    make_record: Callable[..., Record],
    make_results: Callable[..., EpisodeResults],
) -> None:
    if arguments == ["leaderboard"]:
        Store(tmp_path).write(make_record(), make_results(0.9))
        arguments = ["leaderboard", str(tmp_path)]
    script = (
        "import sys\nfrom metabench.cli import main\n"
        "try: main()\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'torchvision', 'pandas', 'scipy.stats', 'bokeh'} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy else end.code)\n"
    )
    environment: dict[str, Any] = {**os.environ, "METABENCH_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert len(done.stdout) > 100


def test_no_two_modules_of_tests_have_one_name() -> None:
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "pytest imports them by their names"


def test_the_wheel_has_every_package_and_their_files() -> None:
    text = (CORE.parent / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(r'"([\w.]+)"', text.partition("packages = [")[2].partition("]")[0])
    folders = {
        f"{name}": CORE.parent / path
        for name, path in (("metabench", "metabench"), ("metabench_plugins", "plugins/metabench_plugins"))
    }
    packages = {
        ".".join((name, *init.parent.relative_to(folder).parts)): init.parent
        for name, folder in folders.items()
        for init in folder.rglob("__init__.py")
    }
    assert set(listed) == {*packages, "metabench_plugins.suites"}
    data = text.partition("[tool.setuptools.package-data]")[2].partition("\n[")[0]
    for name, folder in packages.items():
        files = [path for path in folder.iterdir() if path.is_file() and path.suffix not in (".py", ".pyc")]
        patterns = re.findall(rf'^"?{re.escape(name)}"? = \[(.*)\]$', data, re.M)
        shipped = {path for pattern in re.findall(r'"([^"]+)"', "".join(patterns)) for path in folder.glob(pattern)}
        assert set(files) <= shipped, name
