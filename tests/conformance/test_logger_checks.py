"""Each check of loggers, against a logger that breaks just that rule."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from command_line import Command
from kit import failures
from metabench.cli import cli
from metabench.conformance import made_up_run
from metabench.conformance.checks import NotConforming, run
from metabench.conformance.loggers import CHECKS, Subject
from metabench.errors import PluginError
from metabench.records.store import Store
from metabench.testing import LoggerChecks

FILE = Path(__file__).parent / "broken_loggers.py"

ALL = set(CHECKS)

#: The check, the class that fails it, what the message says, and the checks that cannot pass without it.
BROKEN: list[tuple[str, str, str, set[str]]] = [
    ("hooks", "Hookless", "implements no hook: mark its methods with metabench.specs.hookimpl", ALL),
    ("hooks", "Demanding", "the constructor failed: TypeError: ", ALL),
    ("hooks", "Exiting", "the constructor failed: SystemExit: 3", ALL),
    ("hooks", "Misspelt", "unknown hook 'metabench_cell_ended'", ALL),
    ("hooks", "WrongArgument", "hook 'metabench_run_started'", ALL),
    ("run", "Optimistic", "metabench_cell_finished failed: KeyError: 'accuracy'", {"second run", "threads"}),
    ("run", "Waiting", "metabench_cell_finished has not returned after 0.2 s", ALL - {"hooks"}),
    ("second run", "Exclusive", "metabench_run_started failed: FileExistsError", set()),
    ("sparse records", "Curious", "metabench_cell_finished failed: TypeError: 'NoneType'", set()),
    ("sparse records", "Talkative", "metabench_cell_finished failed: TypeError: object of type 'NoneType'", set()),
    ("threads", "Lingering", "it leaves the thread sender running after the run", set()),
]


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Subject]]:
    """Return a function that makes a subject of a class; at the end, release its threads."""
    monkeypatch.setattr("metabench.conformance.loggers._TO_END", 0.1)
    made: list[Subject] = []

    def make(cls: str) -> Subject:
        made.append(Subject(f"{FILE}:{cls}", seconds=0.2 if cls == "Waiting" else 30))
        return made[-1]

    yield make
    for one in made:
        released: Any = getattr(one.plugins.logger_class(one.name), "released", None)
        if released:
            released.set()


@pytest.mark.parametrize(("check", "cls", "message", "dependent"), BROKEN)
def test_a_broken_rule_is_seen_by_its_check_and_by_those_that_need_it(
    subject: Callable[[str], Subject], check: str, cls: str, message: str, dependent: set[str]
) -> None:
    found = failures(CHECKS, subject(cls))
    assert message in found.pop(check)
    assert set(found) == dependent - {check}


def test_every_check_has_a_logger_that_breaks_it() -> None:
    assert {check for check, *_ in BROKEN} == ALL


@pytest.mark.parametrize("cls", ["Sound", "OneHook"])
def test_a_sound_logger_passes(subject: Callable[[str], Subject], cls: str) -> None:
    assert failures(CHECKS, subject(cls)) == {}


# MLflow's own use of SQLAlchemy, about which its users can do nothing.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_the_built_ins_keep_all_rules(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install 'metabench[{name}]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    assert failures(CHECKS, Subject(name)) == {}


def test_a_missing_package_is_no_broken_rule(tmp_path: Path) -> None:
    (tmp_path / "tracker.py").write_text("import no_such_library\nclass Mine: pass", encoding="utf-8")
    with pytest.raises(PluginError, match="no_such_library") as error:
        run(CHECKS["hooks"], Subject(f"{tmp_path / 'tracker.py'}:Mine"))
    assert not isinstance(error.value, NotConforming)


def keys(value: object, path: str = "") -> set[str]:
    """Return the dotted paths of all keys, without those of parameters and of the environment."""
    if isinstance(value, list):
        return set().union(*(keys(inner, path) for inner in value))
    if not isinstance(value, dict) or path.endswith((".params", ".environment", ".duplicates")):
        return set()
    return {f"{path}.{key}" for key in value}.union(*(keys(inner, f"{path}.{key}") for key, inner in value.items()))


def test_the_made_up_records_have_the_fields_of_real_ones(metabench: Command) -> None:
    suite = Path("small.yaml")
    suite.write_text(suite.read_text().replace("siamese:\n    params: {", "siamese:\n    params: {lr: 1.0e+30, "))
    assert metabench("run", "small.yaml", "--profile", "smoke", "--output", "out").code == 1
    real = {record.status: record.model_dump() for record in Store(Path("out")).records()}
    assert keys(made_up_run.finished()) == keys(real["ok"])
    assert keys(made_up_run.failed()) == keys(real["failed"])


class TestThreeLines(LoggerChecks):
    """The kit as a plugin's author uses it."""

    logger = f"{FILE}:Sound"


# ------------------------------------------------------------------------------------------- command line


def test_the_command_names_what_is_broken() -> None:
    result = CliRunner().invoke(cli, ["plugin", "check", f"{FILE}:Exclusive"], standalone_mode=False)
    assert result.return_value == 1
    assert "FAILED  second run: A second run into the same folder raises nothing." in result.output
    assert result.output.splitlines()[-1] == f"{len(CHECKS) - 1} of {len(CHECKS)} checks passed"


def test_parameters_of_a_logger_are_refused() -> None:
    result = CliRunner().invoke(cli, ["plugin", "check", f"{FILE}:Sound", "--params", "{}"])
    assert result.exit_code == 2
    assert "--params is for algorithms, backbones and datasets, and" in " ".join(result.output.split())
