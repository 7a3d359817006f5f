"""Plugins that exit, crash or change the state of their process spoil no cell but their own."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from command_line import Command, essence
from metabench.executors.forks import start_is_cheap
from metabench.records.store import Store

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        not start_is_cheap(),
        reason="no fork server (Linux, Python ≥ 3.11): one cell at a time has no worker",
    ),
]

HOSTILE = """
    import atexit, ctypes, os, signal, sys, threading, time
    import torch
    from pydantic import model_validator
    from metabench.api import AlgorithmConfig, Config
    from metabench_plugins.algorithms.protonet import ProtoNet
    from metabench_plugins.datasets.glyphs import Glyphs

    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    class Base(BaseException):
        pass

    def act(kind):
        if kind == "exit": sys.exit(0)
        if kind == "exit at once": os._exit(3)
        if kind == "killed": os.kill(os.getpid(), signal.SIGKILL)
        if kind == "crash": ctypes.string_at(0)
        if kind == "base exception": raise Base("beyond Exception")
        if kind == "keyboard interrupt": raise KeyboardInterrupt
        if kind == "unspeakable": raise Unspeakable
        if kind == "control characters": raise ValueError("a\\0b\\x1b[31m red")
        if kind == "closed descriptors": os.closerange(3, 100)
        if kind == "thread": threading.Thread(target=lambda: time.sleep(10**6)).start()
        if kind == "exit handler": atexit.register(lambda: time.sleep(10**6))
        if kind == "dtype": torch.set_default_dtype(torch.float64)
        if kind == "grad mode": torch.set_grad_enabled(False)
        if kind == "folder": os.chdir("/")
        if kind == "seed and threads": torch.manual_seed(7), torch.set_num_threads(1)
        if kind == "prints": print("x" * 10**6), print("y" * 10**6, file=sys.stderr)

    class HostileConfig(AlgorithmConfig):
        kind: str
        place: str

        @model_validator(mode="after")
        def act_in_validation(self):
            if self.place == "validation":
                act(self.kind)
            return self

    class Hostile(ProtoNet):
        Config = HostileConfig

        def __init__(self, config, setup):
            super().__init__(config, setup)
            self.act_in("construction")

        def act_in(self, place):
            if self.config.place == place:
                act(self.config.kind)

        def train_step(self, episodes):
            self.act_in("training")
            return super().train_step(episodes)

        def answer(self, state, query):
            if not self.training:
                self.act_in("prediction")
            return super().answer(state, query)

    class HostileDataConfig(Config):
        kind: str
        place: str

    class HostileData(Glyphs):
        Config = HostileDataConfig

        def sizes(self):
            if self.config.place == "sizes":
                act(self.config.kind)
            return super().sizes()

        def pack(self, files, progress):
            if self.config.place == "packing":
                act(self.config.kind)
            return super().pack(files, progress)

        def split(self, pack):
            if self.config.place == "splitting":
                act(self.config.kind)
            return super().split(pack)
    """

FAILING = [
    "exit",
    "exit at once",
    "killed",
    "crash",
    "base exception",
    "keyboard interrupt",
    "unspeakable",
    "control characters",
]
DISTURBING = [
    "closed descriptors",
    "thread",
    "exit handler",
    "dtype",
    "grad mode",
    "folder",
    "seed and threads",
    "prints",
]

SUITE = """
name: hostile
datasets: {glyphs: {}}
backbones: {conv4: {params: {channels: 2, downsample: stride}}}
ways: [2]
shots: [1]
queries: 2
train: {steps: 4, validation_episodes: 3}
eval: {episodes: 10}
algorithms:
"""


#: Kinds that end the process, or raise beyond `Exception`.
ENDING = ["exit", "exit at once", "killed", "crash", "base exception", "keyboard interrupt"]


def write_suite(place: str, kinds: list[str]) -> None:
    Path("hostile.py").write_text(textwrap.dedent(HOSTILE), encoding="utf-8")
    lines = [f"  {kind}: {{use: './hostile.py:Hostile', params: {{kind: {kind}, place: {place}}}}}" for kind in kinds]
    middle = len(lines) // 2
    text = SUITE + "\n".join(["  protonet: {}", *lines[:middle], "  again: {use: protonet}", *lines[middle:]])
    Path("hostile.yaml").write_text(text + "\n  last: {use: protonet}\n", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("place", ["construction", "training", "prediction"])
def test_a_hostile_plugin_spoils_no_cell_but_its_own(metabench: Command, place: str, jobs: str) -> None:
    write_suite(place, FAILING + DISTURBING)
    ended = metabench("run", "hostile.yaml", "--output", "out", "--jobs", jobs)
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err
    assert "x" * 1000 not in ended.out
    records = {record.algorithm: record for record in Store(Path("out")).records()}
    assert len(records) == 3 + len(FAILING + DISTURBING)
    for kind in FAILING:
        assert records[kind].status == "failed", kind
        assert records[kind].error
    healthy = [records[name] for name in ("protonet", "again", "last")]
    assert [record.status for record in healthy] == ["ok"] * 3
    assert len({record.primary for record in healthy}) == 1
    assert "signal 9" in str(records["killed"].error)
    assert "signal 11" in str(records["crash"].error)
    assert "SystemExit" in str(records["exit"].error)
    assert "\0" not in str(records["control characters"].error)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_algorithm_that_ends_the_process_when_it_is_imported_spoils_no_other_cell(
    metabench: Command, jobs: str
) -> None:
    write_suite("never", [])
    for number, kind in enumerate(ENDING):
        acting = HOSTILE + f"\n    act({kind!r})\n"
        Path(f"target{number}.py").write_text(textwrap.dedent(acting), encoding="utf-8")
    lines = [f"  {kind}: {{use: './target{i}.py:Hostile'}}\n" for i, kind in enumerate(ENDING)]
    Path("hostile.yaml").write_text(SUITE + "".join(lines) + "  protonet: {}\n", encoding="utf-8")
    ended = metabench("run", "hostile.yaml", "--output", "out", "--jobs", jobs)
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err
    records = Store(Path("out")).records()
    assert {record.algorithm: record.status for record in records} == {
        **dict.fromkeys(ENDING, "failed"),
        "protonet": "ok",
    }
    errors = {record.algorithm: str(record.error) for record in records}
    assert "SystemExit" in errors["exit"]
    assert "exit code 3" in errors["exit at once"]
    assert "signal 9" in errors["killed"]
    assert "signal 11" in errors["crash"]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_parameters_whose_check_ends_the_process_spoil_no_other_cell(metabench: Command, jobs: str) -> None:
    write_suite("validation", ENDING)
    ended = metabench("run", "hostile.yaml", "--output", "out", "--jobs", jobs)
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err
    statuses = {record.algorithm: record.status for record in Store(Path("out")).records()}
    assert statuses == {**dict.fromkeys(ENDING, "failed"), **dict.fromkeys(["protonet", "again", "last"], "ok")}


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("place", ["sizes", "packing", "splitting"])
def test_a_dataset_that_ends_the_process_spoils_no_other_cell(metabench: Command, place: str, jobs: str) -> None:
    write_suite("never", [])
    lines = [
        f"  {kind}: {{use: './hostile.py:HostileData', params: {{kind: {kind}, place: {place}}}}}" for kind in ENDING
    ]
    suite = SUITE.replace("datasets: {glyphs: {}}", "\n".join(["datasets:", *lines, "  glyphs: {}"]))
    Path("hostile.yaml").write_text(suite + "  protonet: {}\n", encoding="utf-8")
    ended = metabench("run", "hostile.yaml", "--output", "out", "--jobs", jobs)
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err
    statuses = {record.dataset: record.status for record in Store(Path("out")).records()}
    assert statuses == {**dict.fromkeys(ENDING, "failed"), "glyphs": "ok"}
    again = metabench("run", "hostile.yaml", "--output", "out", "--only", "dataset=glyphs")
    assert (again.code, "kept" in again.err) == (0, True), again.err


def test_finished_cells_stay_when_their_data_cannot_be_loaded_or_their_class_not_imported(
    metabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = """
        import os, signal
        from metabench_plugins.datasets.glyphs import Glyphs
        from metabench_plugins.algorithms.protonet import ProtoNet

        if os.environ.get("DYING") == "import":
            os._exit(3)

        class Data(Glyphs):
            def split(self, pack):
                if os.environ.get("DYING") == "split":
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().split(pack)

        class Mine(ProtoNet): ...
        """
    Path("dying.py").write_text(textwrap.dedent(dying), encoding="utf-8")
    suite = SUITE.replace("glyphs: {}", "mine: {use: './dying.py:Data'}")
    Path("hostile.yaml").write_text(suite + "  mine: {use: './dying.py:Mine'}\n", encoding="utf-8")
    assert metabench("run", "hostile.yaml", "--output", "out").code == 0
    for place in ("split", "import"):
        monkeypatch.setenv("DYING", place)
        assert metabench("run", "hostile.yaml", "--output", "out").code == 1
        (record,) = [record for record in Store(Path("out")).records() if record.status == "ok"]
        monkeypatch.delenv("DYING")
        again = metabench("run", "hostile.yaml", "--output", "out")
        assert "kept    mine" in again.err, again.err
        assert Store(Path("out")).records() == [record]


@pytest.mark.slow
def test_the_healthy_cell_has_the_results_of_a_run_without_hostile_plugins(metabench: Command) -> None:
    write_suite("prediction", DISTURBING)
    assert metabench("run", "hostile.yaml", "--output", "beside").code in (0, 1)
    assert metabench("run", "hostile.yaml", "--output", "alone", "--only", "algorithm=protonet").code == 0
    beside = [record for record in Store(Path("beside")).records() if record.algorithm == "protonet"]
    assert essence(beside) == essence(Store(Path("alone")).records())
