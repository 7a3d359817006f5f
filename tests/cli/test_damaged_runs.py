"""Damaged and lying output directories: one message or an invalid cell, never a traceback or a hang."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from command_line import Command
from metabench.records.record import EpisodeResults, Record
from metabench.records.store import Store

pytestmark = pytest.mark.usefixtures("no_hang")

#: Damages the cell with this id in a folder of cells.
Damage = Callable[[Path], None]

DAMAGED, SOUND = "d" * 16, "5" * 16


@pytest.fixture
def no_hang() -> Iterator[None]:
    """Fail a test that takes longer than a minute."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# -------------------------------------------------------------------------------------- damages of a record


def content(data: bytes) -> Damage:
    return lambda cells: (cells / f"{DAMAGED}.json").write_bytes(data) and None


def value(path: str, new: Any) -> Damage:
    """Put a value into the record, at a path of keys."""

    def damage(cells: Path) -> None:
        file = cells / f"{DAMAGED}.json"
        record = json.loads(file.read_text(encoding="utf-8"))
        *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
        place = record
        for key in parents:
            place = place[key]
        place[last] = new
        file.write_text(json.dumps(record), encoding="utf-8")

    return damage


def alone_of_another_method(cells: Path) -> None:
    value("inductive_accuracy", {"value": 0.9, "ci95": 0.01, "std": 0.05, "episodes": 100})(cells)


def nested(depth: int) -> Any:
    inner: Any = 0
    for _ in range(depth):
        inner = [inner]
    return inner


def deep(cells: Path) -> None:
    file = cells / f"{DAMAGED}.json"
    text = file.read_text(encoding="utf-8").replace(
        '"identity": {', '"identity": {"x":' + "[" * 5000 + "]" * 5000 + ","
    )
    assert "[[[" in text
    file.write_text(text, encoding="utf-8")


def instead(suffix: str, make: Callable[[Path], Any]) -> Damage:
    """Put something else in place of a file of the cell."""

    def damage(cells: Path) -> None:
        path = cells / f"{DAMAGED}{suffix}"
        path.unlink()
        make(path)

    return damage


# ----------------------------------------------------------------------- damages of the per-episode results


def npz(**arrays: Any) -> Damage:
    def damage(cells: Path) -> None:
        with np.load(cells / f"{DAMAGED}.npz") as file:
            kept = dict(file)
        np.savez_compressed(cells / f"{DAMAGED}.npz", **{**kept, **arrays})

    return damage


def header(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> Damage:
    """Put a made-up array into the file of per-episode results."""

    def damage(cells: Path) -> None:
        words = text.encode("latin-1") + b"\n"
        array = b"\x93NUMPY" + version + len(words).to_bytes(2, "little") + words + data
        with zipfile.ZipFile(cells / f"{DAMAGED}.npz", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("metrics/accuracy.npy", array)

    return damage


def bit(place: int) -> Damage:
    def damage(cells: Path) -> None:
        path = cells / f"{DAMAGED}.npz"
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= 0xFF
        path.write_bytes(data)

    return damage


def bomb(cells: Path) -> None:
    """Write a small file of 100 MB of zeros."""
    array = io.BytesIO()
    np.save(array, np.zeros(12_500_000))
    with zipfile.ZipFile(cells / f"{DAMAGED}.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("metrics/accuracy.npy", array.getvalue())


DESCRIPTION = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s,), }"
RED = "\x1b[31mred\x1b[0m\x07\u202e"
EXACT = np.resize([0.45, 0.35], 100)

#: Records that cannot be shown with the others: one message, exit code 2.
REFUSED: dict[str, Damage] = {
    "an empty record": content(b""),
    "a torn record": content(b'{"schema_version": 2, "cell": "ddd'),
    "a record that is no text": content(b"\xff\xfe\x00\x01"),
    "brackets nested 100000 deep": content(b"[" * 100_000),
    "objects nested 5000 deep": content(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "a value nested 5000 deep": deep,
    "a number of 5000 digits": content(b"9" * 5000),
    "a null record": content(b"null"),
    "a list": content(b"[]"),
    "an object without keys": content(b"{}"),
    "no number for a way": value("way", float("nan")),
    "an endless time": value("train.seconds", float("inf")),
    "a lone surrogate": value("algorithm", "\ud800"),
    "a record that is a pipe": instead(".json", os.mkfifo),
    "a record that is a folder": instead(".json", os.mkdir),
    "a record that is an endless device": instead(".json", lambda path: path.symlink_to("/dev/zero")),
    "a record that links to itself": instead(".json", lambda path: path.symlink_to(path)),
    "a way of 31 digits": value("way", 10**30),
    "a negative shot": value("shot", -1),
    "a null identity": value("identity", None),
    "a null dataset in the identity": value("identity.dataset", None),
    "a null environment": value("environment", None),
    "null providers": value("environment.providers", None),
    "a null machine": value("machine", None),
    "an unknown machine": value("machine.kind", "tpu"),
    "a null device": value("device", None),
    "a time that is a number": value("finished", 5),
    "a record of a later version": value("schema_version", 99),
    "a version that is a text": value("schema_version", "two"),
}

#: Cells of which the results are wrong: named, left out, and run again.
INVALID: dict[str, Damage] = {
    "another mean": value("metrics.accuracy.value", 0.9),
    "a mean of -5": value("metrics.accuracy.value", -5),
    "a mean of 1e400": value("metrics.accuracy.value", 10**400),
    "a mean of null": value("metrics.accuracy.value", None),
    "no accuracy": value("metrics.accuracy", None),
    "an accuracy that is a text": value("metrics.accuracy", "good"),
    "10**12 episodes": value("metrics.accuracy.episodes", 10**12),
    "no episodes": value("metrics.accuracy.episodes", 0),
    "fewer episodes": value("metrics.accuracy.episodes", 50),
    "a negative interval": value("metrics.accuracy.ci95", -0.1),
    "another accuracy alone": alone_of_another_method,
    "the id of another cell": value("cell", "e" * 16),
    "an id that is a path": value("cell", f"../../elsewhere/cells/{SOUND}"),
    "an empty id": value("cell", ""),
    "an unknown status": value("status", "fine"),
    "an unknown key": value("trust", "me"),
    "a training that is a list": value("train", []),
    "a negative time": value("train.seconds", -1.0),
    "a training of no steps": value("train.steps", 0),
    "a negative rate": value("eval.episodes_per_second", -3),
    "a rate of 1e300": value("eval.episodes_per_second", 1e300),
    "a null latency": value("eval.latency_ms", None),
    "a negative latency": value("eval.latency_ms.p50", -1),
    "a latency of 5e-324": value("eval.latency_ms.p50", 5e-324),
    "a memory of 401 digits": value("peak_memory_bytes", 10**400),
    "negative operations": value("flops_per_episode", -1),
    "negative parameters": value("parameters", -7),
    "null for the worst classes": value("worst_classes", None),
    "a class beyond 100 %": value("worst_classes", [{"name": "a", "accuracy": 7.0, "episodes": 1}]),
    "null for the remarks": value("remarks", None),
    "no file of episodes": instead(".npz", lambda path: None),
    "an empty file": instead(".npz", lambda path: path.touch()),
    "a text": instead(".npz", lambda path: path.write_text("words")),
    "a file that is a pipe": instead(".npz", os.mkfifo),
    "a file that is a folder": instead(".npz", os.mkdir),
    "a file that is an endless device": instead(".npz", lambda path: path.symlink_to("/dev/zero")),
    "a damaged bit": bit(70),
    "a damaged end": bit(-20),
    "other accuracies": npz(**{"metrics/accuracy": EXACT + 0.1}),
    "an accuracy that is no number": npz(**{"metrics/accuracy": np.where(np.arange(100) == 7, np.nan, EXACT)}),
    "an endless accuracy": npz(**{"metrics/accuracy": np.where(np.arange(100) == 7, np.inf, EXACT)}),
    "accuracies of -5": npz(**{"metrics/accuracy": EXACT - 5}),
    "compensating accuracies": npz(**{"metrics/accuracy": EXACT + np.resize([5, -5], 100)}),
    "fewer accuracies": npz(**{"metrics/accuracy": EXACT[:50]}),
    "accuracies of two dimensions": npz(**{"metrics/accuracy": EXACT.reshape(50, 2)}),
    "complex accuracies": npz(**{"metrics/accuracy": EXACT.astype(complex)}),
    "accuracies as texts": npz(**{"metrics/accuracy": EXACT.astype(str)}),
    "a program in place of accuracies": npz(**{"metrics/accuracy": np.array([print] * 100, dtype=object)}),
    "a shape of 10**12": header(DESCRIPTION % 10**12),
    "a shape of 10**12 for 100 episodes": header(DESCRIPTION % 10**12, EXACT.tobytes()),
    "a negative shape": header(DESCRIPTION % -100, EXACT.tobytes()),
    "less data than the shape says": header(DESCRIPTION % 100, EXACT.tobytes()[:80]),
    "an unknown version of the format": header(DESCRIPTION % 100, EXACT.tobytes(), b"\x07\x07"),
    "a header that is no dictionary": header("(((((" * 900),
    "a header of a damaged type": header(DESCRIPTION.replace("<f8", "<f") % 100, EXACT.tobytes()),
    "100 MB in 100 kB": bomb,
}

#: What is wrong here concerns nobody.
HARMLESS: dict[str, Damage] = {
    "terminal escapes in a label": value("algorithm", RED),
    "terminal escapes in a device": value("device", RED),
    "terminal escapes in the precision": value("identity.precision", RED),
    "terminal escapes in a remark": value("remarks", [f"{RED}\nNEXT LINE"]),
    "terminal escapes in the environment": value("environment.git_commit", RED),
    "parameters unknown": value("parameters", None),
    "a training unknown": value("train", None),
    "a test unknown": value("eval", None),
    "a value nested 50 deep": value("identity.x", nested(50)),
    "an empty identity": value("identity", {}),
    "a seed of 41 digits": value("seed", 10**40),
}


@pytest.fixture
def folder(
    tmp_path: Path, make_record: Callable[..., Record], make_results: Callable[..., EpisodeResults]
) -> Callable[[Damage], Path]:
    """Return a function that stores two cells, and damages one of them; the sound folder is beside it."""

    def make(damage: Damage) -> Path:
        identity = {"dataset": {"name": "glyphs"}, "test": {"seed": 0}}
        changes = {"identity": identity, "environment": {"cuda": None, "torch": "2", "providers": {}}}
        for cell, name, mean in ((SOUND, "sound", 0.5), (DAMAGED, "damaged", 0.4)):
            accuracy = {"value": mean, "ci95": 0.01, "std": 0.05, "episodes": 100}
            record = make_record(
                mean, cell=cell, algorithm=name, **changes, metrics={"accuracy": accuracy}, inductive_accuracy=accuracy
            )
            Store(tmp_path / "sound").write(record, make_results(mean))
        shutil.copytree(tmp_path / "sound", tmp_path / "damaged")
        damage(tmp_path / "damaged" / "cells")
        return tmp_path / "damaged"

    return make


def printed_safely(text: str) -> bool:
    return not any(ord(character) < 32 and character != "\n" for character in text) and "\u202e" not in text


def every_output(metabench: Command, folder: Path) -> Iterator[tuple[int, str, str]]:
    """Yield exit code, output and messages of each command that shows the folder."""
    for style in ("table", "markdown", "latex", "html", "csv", "json"):
        ended = metabench("leaderboard", str(folder), "--format", style)
        assert isinstance(ended.code, int)
        if style == "json" and ended.code < 2:
            json.loads(ended.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        yield ended.code, ended.out, ended.err
    ended = metabench("report", str(folder))
    assert isinstance(ended.code, int)
    page = folder / "report.html"
    yield ended.code, page.read_text(encoding="utf-8") if page.exists() else "", ended.err


@pytest.mark.parametrize("name", REFUSED)
def test_a_record_that_cannot_be_read_is_one_message(
    metabench: Command, folder: Callable[[Damage], Path], name: str
) -> None:
    damaged = folder(REFUSED[name])
    for code, out, err in every_output(metabench, damaged):
        assert (code, out) == (2, "")
        assert err.startswith("metabench: ")
        assert f"{DAMAGED}.json" in err
        assert len(err.splitlines()) == 1
        assert printed_safely(err)
    for pair in ((damaged, damaged.parent / "sound"), (damaged.parent / "sound", damaged)):
        ended = metabench("compare", *map(str, pair))
        assert (ended.code, ended.out) == (2, "")
        assert f"{DAMAGED}.json" in ended.err


@pytest.mark.parametrize("name", INVALID)
def test_a_cell_with_wrong_results_is_named_and_the_others_are_shown(
    metabench: Command, folder: Callable[[Damage], Path], name: str
) -> None:
    damaged = folder(INVALID[name])
    for code, out, err in every_output(metabench, damaged):
        assert code == 1
        assert "sound" in out
        assert "50.00" in out or "0.5," in out or '"value": 0.5,' in out, "the other cell is shown"
        assert "40.00 ±" not in out
        assert "90.00 ±" not in out
        assert "invalid" in out
        assert f"{DAMAGED}." in err
        assert "run the suite again" in err
        assert len(err.splitlines()) == 1
        assert printed_safely(err)
    for pair in ((damaged, damaged.parent / "sound"), (damaged.parent / "sound", damaged)):
        ended = metabench("compare", *map(str, pair))
        assert (ended.code, ended.err) == (1, ""), "a gate does not pass over a cell"
        assert f"{DAMAGED}." in ended.out


@pytest.mark.parametrize("name", HARMLESS)
def test_a_strange_record_is_shown_safely(metabench: Command, folder: Callable[[Damage], Path], name: str) -> None:
    damaged = folder(HARMLESS[name])
    for code, out, err in every_output(metabench, damaged):
        assert (code, err) == (0, "")
        assert printed_safely(out)
        assert "\n".join(line for line in out.splitlines() if line.startswith("NEXT LINE")) == ""
    for style in ("table", "markdown", "junit", "json"):
        ended = metabench("compare", str(damaged), str(damaged), "--format", style)
        assert (ended.code, ended.err) == (0, "")
        assert printed_safely(ended.out)
        if style == "json":
            json.loads(ended.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# ---------------------------------------------------------------------------------------------- run again


#: Damages of a real cell that `run` mends: every third; pipes, devices and folders are left alone.
MENDED = [name for name in INVALID if not name.startswith("a file that is a")][::3]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty folder for a finished run, which the first test fills."""
    return Path(tmp_path_factory.mktemp("finished"))


@pytest.mark.usefixtures("one_thread", "few_latencies")
@pytest.mark.parametrize("name", MENDED)
def test_a_run_makes_an_invalid_cell_again_and_keeps_the_others(metabench: Command, finished: Path, name: str) -> None:
    command = ("run", "small.yaml", "--profile", "smoke", "--output", "out")
    if not (finished / "out").exists():
        assert metabench(*command).code == 0
        shutil.copytree("out", finished / "out")
    shutil.rmtree("out", ignore_errors=True)
    shutil.copytree(finished / "out", "out")
    damaged, sound = sorted(Path("out/cells").glob("*.json"))
    before = json.loads(damaged.read_text(encoding="utf-8"))
    for path in Path("out/cells").glob(f"{damaged.stem}.*"):  # the damages know the cell by this name
        path.rename(path.with_name(path.name.replace(damaged.stem, DAMAGED)))
    INVALID[name](Path("out/cells"))
    for path in Path("out/cells").glob(f"{DAMAGED}.*"):
        path.rename(path.with_name(path.name.replace(DAMAGED, damaged.stem)))
    kept = sound.read_bytes()
    ended = metabench(*command)
    assert ended.code == 0, ended.err
    assert len(re.findall("^kept ", ended.err, re.MULTILINE)) == 1
    assert len(re.findall("^done ", ended.err, re.MULTILINE)) == 1
    assert "invalid" not in ended.out
    assert sound.read_bytes() == kept
    assert json.loads(damaged.read_text(encoding="utf-8"))["metrics"] == before["metrics"]
    assert metabench("leaderboard", "out").code == 0


@pytest.mark.usefixtures("one_thread", "few_latencies")
@pytest.mark.parametrize("name", ["a torn record", "a null identity", "a record that is a pipe", "a lone surrogate"])
def test_a_run_beside_a_record_that_cannot_be_read_is_refused(
    metabench: Command, folder: Callable[[Damage], Path], name: str
) -> None:
    damaged = folder(REFUSED[name])
    ended = metabench("run", "small.yaml", "--profile", "smoke", "--output", str(damaged))
    assert (ended.code, ended.out) == (2, "")
    assert f"{DAMAGED}.json" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
