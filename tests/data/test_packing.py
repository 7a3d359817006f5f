from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from metabench import api
from metabench.cli.data import data as data_command
from metabench.cli.progress import pack_progress
from metabench.data.packing import DataRoots, load_pack, load_splits, make_pack, pack_path, packed_files
from metabench.errors import DataError, PluginError
from metabench.packs import Pack, read_pack
from metabench.registry.manager import PluginManager


class Squares(api.Dataset):
    """Six classes of two constant images; remembers what it was given."""

    def __init__(self, shade: int = 0) -> None:
        super().__init__(api.Config())
        self.shade = shade
        self.given: list[api.DatasetFiles] = []

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        self.given.append(files)
        progress(1, 1, "squares")
        images = np.full((12, 1, 8, 8), self.shade, np.uint8)
        return Pack(images, np.arange(7, dtype=np.int64) * 2, tuple("abcdef"))

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        images = torch.tensor(pack.images[:4])
        return {name: api.Split(images, torch.tensor([0, 2, 4]), ("a", "b")) for name in ("train", "val", "test")}


class Unfindable(Squares):
    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        raise DataError("nowhere")


def silent(done: int, total: int, what: str) -> None:
    pass


def roots(tmp_path: Path, *sources: Path) -> DataRoots:
    return DataRoots(sources=sources, cache=tmp_path / "cache")


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------- roots


def test_the_environment_names_the_roots(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    environ = {"METABENCH_DATA": f"{one}{os.pathsep}{two}", "METABENCH_CACHE": str(tmp_path / "cache")}
    assert DataRoots.from_environment(environ) == DataRoots((one, two), tmp_path / "cache", download=True)


def test_an_empty_environment_uses_the_cache_of_the_platform() -> None:
    found = DataRoots.from_environment({})
    assert found.sources == ()
    assert found.cache.name == "metabench"
    assert found.download


@pytest.mark.parametrize(("value", "download"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_offline_forbids_downloads(value: str, download: bool) -> None:
    assert DataRoots.from_environment({"METABENCH_OFFLINE": value}).download is download


def test_a_missing_source_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"METABENCH_DATA names .*nowhere, which is not a directory"):
        DataRoots.from_environment({"METABENCH_DATA": str(tmp_path / "nowhere")})


# ------------------------------------------------------------------------------------------ load_pack


def test_a_dataset_is_packed_once(tmp_path: Path) -> None:
    dataset = Squares(shade=7)
    where = roots(tmp_path)
    first = load_pack("squares", dataset, where, silent)
    second = load_pack("squares", dataset, where, silent)
    assert len(dataset.given) == 1
    assert first.fingerprint == second.fingerprint
    assert pack_path("squares", dataset, where) == tmp_path / "cache" / "squares" / "v1.safetensors"
    assert packed_files("squares", where) == [pack_path("squares", dataset, where)]
    assert names_below(tmp_path) == ["cache/squares/v1.safetensors"]


def test_making_a_pack_replaces_the_old_one(tmp_path: Path) -> None:
    where = roots(tmp_path)
    load_pack("squares", Squares(shade=1), where, silent)
    made = make_pack("squares", Squares(shade=2), where, silent)
    found = read_pack(pack_path("squares", Squares(), where))
    assert found is not None
    assert found.fingerprint == made.fingerprint
    assert found.images.max() == 2


def test_a_dataset_sees_its_own_folder_before_the_source(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "squares").mkdir(parents=True)
    two.mkdir()
    dataset = Squares()
    load_pack("squares", dataset, roots(tmp_path, one, two), silent)
    (files,) = dataset.given
    assert list(files.sources) == [one / "squares", one, two]
    assert files.cache == tmp_path / "cache" / "squares"
    assert files.download
    assert names_below(one) == names_below(two) == []


def test_splits_come_with_the_fingerprint(tmp_path: Path) -> None:
    splits, fingerprint = load_splits("squares", Squares(), roots(tmp_path), silent)
    assert set(splits) == {"train", "val", "test"}
    assert splits["test"].size == api.SplitSize(classes=2, images_per_class=2)
    pack = read_pack(tmp_path / "cache" / "squares" / "v1.safetensors")
    assert pack is not None
    assert pack.fingerprint == fingerprint


def test_a_damaged_pack_is_not_used(tmp_path: Path) -> None:
    where = roots(tmp_path)
    load_pack("squares", Squares(), where, silent)
    os.truncate(pack_path("squares", Squares(), where), 100)
    with pytest.raises(DataError, match="is damaged: delete that file"):
        load_pack("squares", Squares(), where, silent)


def test_a_cache_that_cannot_be_made_is_noticed_before_packing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, so nothing can be made below it")
    dataset = Squares()
    with pytest.raises(DataError, match=r"cannot write to the cache .*set METABENCH_CACHE"):
        load_pack("squares", dataset, roots(tmp_path), silent)
    assert dataset.given == []


def test_a_full_disk_is_noticed_before_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("metabench.data.packing.tempfile.TemporaryFile", full)
    dataset = Squares()
    with pytest.raises(DataError, match=r"No space left on device.*METABENCH_CACHE"):
        load_pack("squares", dataset, roots(tmp_path), silent)
    assert dataset.given == []
    assert names_below(tmp_path) == []


def test_a_failed_pack_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        load_pack("squares", Unfindable(), roots(tmp_path), silent)
    assert names_below(tmp_path) == []


def test_importing_this_module_does_not_import_torch() -> None:
    code = "import sys, metabench.data.packing, metabench.cli.data; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------------------- command line


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `metabench data` with the built-in plugins, an empty cache and no network."""
    builtin = EntryPoint("builtin", "metabench_plugins.plugin", "metabench")
    monkeypatch.setattr(PluginManager, "from_environment", lambda: PluginManager([builtin]))
    monkeypatch.delenv("METABENCH_DATA", raising=False)
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METABENCH_OFFLINE", "1")

    def run(*arguments: str) -> str:
        return CliRunner().invoke(data_command, arguments, catch_exceptions=False).stdout

    return run


def test_prepare_packs_and_list_shows_it(cli: Callable[..., str], tmp_path: Path) -> None:
    before = cli("list")
    assert [line.split() for line in before.splitlines()[2:4]] == [["glyphs", "no"], ["omniglot", "no"]]
    assert "METABENCH_DATA   (not set)" in before
    assert f"METABENCH_CACHE  {tmp_path / 'cache'}" in before

    assert "glyphs: packed, 350 classes, 7000 images" in cli("prepare", "glyphs")
    assert "glyphs: was already packed" in cli("prepare", "glyphs")

    after = cli("list").splitlines()[2].split()
    assert after == ["glyphs", "yes", "5.2", str(tmp_path / "cache" / "glyphs" / "v1.safetensors")]


def test_prepare_checks_all_names_before_packing(cli: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="did you mean 'omniglot'"):
        cli("prepare", "glyphs", "omniglott")
    assert names_below(tmp_path) == []


def test_import_looks_only_in_the_given_folder(
    cli: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    empty = tmp_path / "empty"
    other.mkdir()
    empty.mkdir()
    monkeypatch.setenv("METABENCH_DATA", str(other))
    with pytest.raises(DataError, match=r"not in \S*empty, and downloading is switched off"):
        cli("import", "omniglot", str(empty))


# ------------------------------------------------------------------------------------------- progress


def test_progress_is_silent_at_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pack_progress() as progress:
        progress(1, 2, "packing")
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_plain_line_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pack_progress(patience=0) as progress:
        progress(1, 3, "packing")
        progress(2, 3, "packing")  # too soon for another line
    assert capsys.readouterr() == ("", "packing 1/3, 0 s left\n")


def test_progress_is_a_bar_in_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with pack_progress(patience=0) as progress:
        progress(1, 2, "packing")
    out, err = capsys.readouterr()
    assert out == ""
    assert "packing 1/2" in err
