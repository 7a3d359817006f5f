from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock

from metabench import api
from metabench.cli.data import data as data_command
from metabench.cli.progress import pack_progress
from metabench.data.packing import DataRoots, dataset_files, load_pack, load_splits, make_pack, pack_path, packed_files
from metabench.data.sampler import EpisodeShape
from metabench.engine.streams import EpisodeStream
from metabench.errors import DataError, PluginError
from metabench.packs import Pack, read_pack, write_pack
from metabench.registry.manager import PluginManager


class SquaresConfig(api.Config):
    root: str = ""
    more: tuple[str, ...] = ()
    size: int = 8
    part: int = 0


class Squares(api.Dataset):
    """Six classes of two squares; remembers what it was given."""

    Config = SquaresConfig
    split_parameters = ("part",)

    def __init__(self, shade: int = 0, **params: Any) -> None:
        super().__init__(SquaresConfig(**params))
        self.shade = shade
        self.given: list[api.DatasetFiles] = []

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        self.given.append(files)
        progress(1, 1, "squares")
        images = np.full((12, 1, self.config.size, self.config.size), self.shade, np.uint8)
        images[:, 0, 0, 0] = np.arange(12)
        return Pack(images, np.arange(7, dtype=np.int64) * 2, tuple("abcdef"))

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        images = torch.tensor(pack.images)
        return {
            name: api.Split(images[4 * i : 4 * i + 4], torch.tensor([0, 2, 4]), pack.class_names[2 * i : 2 * i + 2])
            for i, name in enumerate(("train", "val", "test"))
        }


class Unfindable(Squares):
    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        raise DataError("nowhere")


def silent(done: int, total: int, what: str) -> None:
    pass


def roots(tmp_path: Path, *sources: Path) -> DataRoots:
    return DataRoots(sources=sources, cache=tmp_path / "cache")


def names_below(folder: Path) -> list[str]:
    """Return the files below a folder; empty files of locks stay, since another process may wait for one."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return sorted(path.relative_to(folder).as_posix() for path in files)


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
    path = pack_path("squares", dataset, where)
    assert path.parent == tmp_path / "cache" / "squares"
    assert packed_files("squares", where) == [path]
    assert names_below(tmp_path) == [f"cache/squares/{path.name}"]


def test_making_a_pack_replaces_the_old_one(tmp_path: Path) -> None:
    where = roots(tmp_path)
    load_pack("squares", Squares(shade=1), where, silent)
    made = make_pack("squares", Squares(shade=2), where, silent)
    found = read_pack(pack_path("squares", Squares(), where))
    assert found is not None
    assert found.fingerprint == made.fingerprint
    assert found.images[0, 0].max() == 2


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
    loaded = load_splits("squares", Squares(), roots(tmp_path), silent)
    assert set(loaded.splits) == {"train", "val", "test"}
    assert loaded.splits["test"].size == api.SplitSize(classes=2, images_per_class=2)
    pack = read_pack(pack_path("squares", Squares(), roots(tmp_path)))
    assert pack is not None
    assert pack.fingerprint == loaded.fingerprint
    assert loaded.raw_files == 0


# ----------------------------------------------------------------------------------- which pack it is


def test_other_parameters_have_other_packs_unless_only_split_reads_them(tmp_path: Path) -> None:
    where = roots(tmp_path)
    for params in ({}, {"size": 5}, {"root": "x"}):
        load_pack("squares", Squares(**params), where, silent)
    assert len(packed_files("squares", where)) == 3
    assert pack_path("squares", Squares(part=1), where) == pack_path("squares", Squares(), where)
    assert load_splits("squares", Squares(size=5), where, silent).splits["val"].images.shape[-1] == 5


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return a folder of raw files."""
    folder = tmp_path / "raw"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("change", ["content", "new file", "deleted class", "renamed file", "nothing"])
def test_changed_raw_files_are_read_anew(change: str, raw: Path, tmp_path: Path) -> None:
    where = roots(tmp_path)
    dataset = Squares(root=str(raw))
    assert load_splits("squares", dataset, where, silent).raw_files == 3
    if change == "content":
        os.utime(raw / "a" / "1.png", ns=(0, 0))
    elif change == "new file":
        (raw / "b" / "2.png").write_text("")
    elif change == "deleted class":
        shutil.rmtree(raw / "b")
    elif change == "renamed file":
        (raw / "a" / "1.png").rename(raw / "a" / "3.png")
    load_splits("squares", dataset, where, silent)
    assert len(dataset.given) == (1 if change == "nothing" else 2)
    assert len(packed_files("squares", where)) == 1


def test_a_parameter_may_name_several_folders(raw: Path, tmp_path: Path) -> None:
    dataset = Squares(root="/", more=(str(raw / "a"), str(raw / "b" / "1.png"), str(raw / "missing")))
    assert load_splits("squares", dataset, roots(tmp_path), silent).raw_files == 3


def test_a_relative_folder_is_another_one_elsewhere(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = roots(tmp_path)
    shutil.copytree(raw, tmp_path / "elsewhere" / "raw")
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        load_pack("squares", Squares(root="raw"), where, silent)
    assert len(packed_files("squares", where)) == 2


def test_without_raw_files_the_pack_serves_and_says_so(raw: Path, tmp_path: Path) -> None:
    where = roots(tmp_path, tmp_path)
    raw.rename(tmp_path / "squares")
    dataset = Squares()
    assert load_splits("squares", dataset, where, silent).raw_files == 3
    shutil.rmtree(tmp_path / "squares")
    assert load_splits("squares", dataset, where, silent).raw_files == 0
    assert len(dataset.given) == 1


def test_a_dataset_names_its_raw_files(raw: Path, tmp_path: Path) -> None:
    class Named(Squares):
        def raw_files(self, files: api.DatasetFiles) -> list[Path]:
            return [raw / "a" / "1.png", raw / "missing"]

    dataset = Named()
    for _ in range(2):
        assert load_splits("squares", dataset, roots(tmp_path), silent).raw_files == 1
    (raw / "b" / "1.png").unlink()
    load_splits("squares", dataset, roots(tmp_path), silent)
    assert len(dataset.given) == 1
    os.utime(raw / "a" / "1.png", ns=(0, 0))
    load_splits("squares", dataset, roots(tmp_path), silent)
    assert len(dataset.given) == 2


IN_FILE = """
import numpy as np, torch
from metabench import api

class Local(api.Dataset):
    def pack(self, files, progress):
        images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) + SHADE
        return api.Pack(images, np.arange(4) * 2, ("a", "b", "c"))

    def split(self, pack):
        images = torch.tensor(pack.images)
        return {
            name: api.Split(images[2 * i : 2 * i + 2], torch.tensor([0, 2]), pack.class_names[i : i + 1])
            for i, name in enumerate(("train", "val", "test"))
        }
"""


def load_local(path: Path, where: DataRoots, shade: int) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(IN_FILE.replace("SHADE", str(shade)), encoding="utf-8")
    name = f"{path}:Local"
    return load_splits(name, PluginManager([]).build_dataset(name), where, silent).fingerprint


def test_changed_code_has_another_pack_in_the_cache_folder(tmp_path: Path) -> None:
    where = roots(tmp_path)
    path = tmp_path / "code" / "local.py"
    assert load_local(path, where, 0) != load_local(path, where, 1)
    assert names_below(path.parent) == ["local.py"], "nothing is written beside the file"
    packs = [path.relative_to(where.cache).as_posix() for path in packed_files(f"{path}:Local", where)]
    assert len(packs) == 2
    assert all(re.fullmatch(r"local-Local/v1-[0-9a-f]{12}\.safetensors", name) for name in packs)


def test_files_of_the_same_name_do_not_share_a_pack(tmp_path: Path) -> None:
    where = roots(tmp_path)
    for folder in ("one", "two"):
        load_local(tmp_path / folder / "local.py", where, 0)  # each may read the files beside it
    assert len(packed_files("local.py:Local", where)) == 2


def test_packs_are_found_again_under_names_that_a_file_system_refuses(tmp_path: Path) -> None:
    where = roots(tmp_path)
    load_pack('a:b/c"d', Squares(), where, silent)
    assert len(packed_files('a:b/c"d', where)) == 1
    assert not [name for name in names_below(where.cache) if set(name) & set(':"<>|?*\\')]


def test_a_damaged_pack_is_not_used(tmp_path: Path) -> None:
    where = roots(tmp_path)
    load_pack("squares", Squares(), where, silent)
    os.truncate(pack_path("squares", Squares(), where), 100)
    with pytest.raises(DataError, match="is damaged: delete that file"):
        load_pack("squares", Squares(), where, silent)


class Streamed(Squares):
    """The squares, class by class."""

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Iterator[Any]:  # type: ignore[override]
        yield from super().pack(files, progress).classes()


def test_a_dataset_may_pack_class_by_class(tmp_path: Path) -> None:
    whole = load_splits("squares", Squares(shade=3), roots(tmp_path / "whole"), silent)
    dataset = Streamed(shade=3)
    streamed = load_splits("squares", dataset, roots(tmp_path / "streamed"), silent)
    assert (streamed.fingerprint, streamed.test_content) == (whole.fingerprint, whole.test_content)
    load_splits("squares", dataset, roots(tmp_path / "streamed"), silent)
    assert len(dataset.given) == 1


SQUARE = np.zeros((2, 1, 8, 8), np.uint8)
WRONG_CLASSES = {
    "no class": ([], r"class_names must be at least one class"),
    "no ClassImages": ([SQUARE], r"the values must be ClassImages; it is uint8 \[2, 1, 8, 8\]"),
    "a class twice": ([api.ClassImages("é", SQUARE), api.ClassImages("e\u0301", SQUARE)], "for the classes 0 and 1"),
    "a number as a name": ([api.ClassImages(3, SQUARE)], r"the name of a class must be text; it is 3"),  # type: ignore[arg-type]
    "floats": ([api.ClassImages("a", SQUARE / 255)], r"class 'a': images must be uint8 .* float64"),
    "a class without images": ([api.ClassImages("a", SQUARE[:0])], r"class 'a': images must be at least one image"),
    "another shape": (
        [api.ClassImages("a", SQUARE), api.ClassImages("b", SQUARE[..., :4])],
        r"class 'b': images must be of the shape of the first class, \[1, 8, 8\]; it is \[1, 8, 4\]",
    ),
    "names for some": (
        [api.ClassImages("a", SQUARE, ("1", "2")), api.ClassImages("b", SQUARE)],
        r"class 'b': image_names must be given for all classes, or for none",
    ),
    "names of fewer images": ([api.ClassImages("a", SQUARE, ("1",))], r"image_names must be one for each of 2 images"),
}


@pytest.mark.parametrize("case", WRONG_CLASSES)
def test_a_wrong_class_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    classes, message = WRONG_CLASSES[case]

    class Wrong(Squares):
        def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Iterator[Any]:  # type: ignore[override]
            yield from classes

    with pytest.raises(DataError, match=rf"^the dataset 'squares', pack\(\).*{message}"):
        load_pack("squares", Wrong(), roots(tmp_path), silent)
    assert names_below(tmp_path) == []


def test_an_error_between_two_classes_names_the_dataset_and_leaves_nothing(tmp_path: Path) -> None:
    class Failing(Streamed):
        def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Iterator[Any]:  # type: ignore[override]
            yield api.ClassImages("a", SQUARE)
            raise OSError("a bug")

    with pytest.raises(DataError, match=r"the dataset 'squares' failed in pack\(\): OSError: a bug"):
        load_pack("squares", Failing(), roots(tmp_path), silent)
    assert names_below(tmp_path) == []


def test_images_are_examined_once_and_again_when_they_change(tmp_path: Path) -> None:
    seen: list[str] = []

    def note(done: int, total: int, what: str) -> None:
        seen.append(what)

    where = roots(tmp_path)
    first = load_splits("squares", Squares(), where, note)
    assert "checking squares" in seen
    seen.clear()
    again = load_splits("squares", Squares(), where, note)
    assert seen == []
    assert (again.findings, again.test_content) == (first.findings, first.test_content)
    make_pack("squares", Squares(shade=9), where, silent)
    changed = load_splits("squares", Squares(), where, note)
    assert seen == ["checking squares"] * len(seen) != []
    assert changed.test_content != first.test_content
    for note_file in where.cache.rglob("*.json"):
        note_file.write_text("{")
    assert load_splits("squares", Squares(), where, note).test_content == changed.test_content


def test_a_split_of_some_classes_copies_no_image(tmp_path: Path) -> None:
    pack = load_pack("squares", Squares(), roots(tmp_path), silent)
    split = api.Split.of(pack, [4, 1])
    assert split.class_names == ["e", "b"]
    assert split.offsets.tolist() == [0, 2, 4]
    assert split.rows.take(torch.arange(4))[:, 0, 0, 0].tolist() == [8, 9, 2, 3]
    pack.images[8, 0, 0, 0] = 77
    assert int(split.rows.take(torch.tensor([0]))[0, 0, 0, 0]) == 77


def test_a_split_may_take_a_part_of_the_images_of_a_class(tmp_path: Path) -> None:
    pack = load_pack("squares", Squares(), roots(tmp_path), silent)
    split = api.Split.of(pack, [4, 1], images=np.arange(len(pack.images)) % 2 == 1)
    assert split.offsets.tolist() == [0, 1, 2]
    assert split.rows.take(torch.arange(2))[:, 0, 0, 0].tolist() == [9, 3]


class Computed(api.Rows):
    """Twelve images, made when they are asked for; the image `broken` cannot be."""

    shape = (1, 2, 2)
    dtype = torch.uint8

    def __init__(self, first: int, count: int = 4, broken: int = -1) -> None:
        self.first, self.count, self.broken = first, count, broken

    def __len__(self) -> int:
        return self.count

    def take(self, index: torch.Tensor) -> torch.Tensor:
        if self.broken in index:
            raise OSError("the server is gone")
        pixels = torch.tensor([0, 50, 100, 150]).reshape(1, 1, 2, 2)
        return (index.reshape(-1, 1, 1, 1) + self.first + pixels).to(torch.uint8)


class Remote(Squares):
    """Squares whose images are made when they are asked for."""

    changes: Mapping[str, int]

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        return {
            name: replace(split, images=Computed(10 * i, **self.changes if name == "val" else {}))
            for i, (name, split) in enumerate(super().split(pack).items())
        }


def test_rows_may_be_of_the_datasets_own(tmp_path: Path) -> None:
    dataset = Remote()
    dataset.changes = {}
    splits = load_splits("remote", dataset, roots(tmp_path), silent).splits
    stream = EpisodeStream(splits["val"], EpisodeShape(2, 1, 1), "val", 0, torch.device("cpu"))
    drawn = (stream.batch(0, 1).query_x * 255).round().flatten(2)
    assert set(drawn[0, :, 0].tolist()) <= {10, 11, 12, 13}
    assert (drawn[0, :, 3] - drawn[0, :, 0]).tolist() == [150, 150]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"broken": 0}, r"the dataset 'remote' failed in split\(\): OSError: the server is gone"),
        ({"broken": 3}, r"the dataset 'remote' failed in reading its images: OSError: the server is gone"),
        ({"count": 0}, r"the dataset 'remote', split 'val': images must be at least one image"),
        ({"count": 5}, r"the dataset 'remote', split 'val': offsets must be from 0 to the number of images, 5"),
    ],
)
def test_rows_of_the_datasets_own_are_checked(changes: Mapping[str, int], message: str, tmp_path: Path) -> None:
    dataset = Remote()
    dataset.changes = changes
    with pytest.raises(DataError, match=message):
        load_splits("remote", dataset, roots(tmp_path), silent)


class Vectors(Squares):
    """Six classes of two vectors of three numbers."""

    def pack(self, files: api.DatasetFiles, progress: api.Progress) -> Pack:
        vectors = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
        return Pack(vectors, np.arange(7, dtype=np.int64) * 2, tuple("abcdef"))


def test_rows_may_be_vectors_which_come_as_they_are(tmp_path: Path) -> None:
    splits = load_splits("vectors", Vectors(), roots(tmp_path), silent).splits
    stream = EpisodeStream(splits["test"], EpisodeShape(2, 1, 1), "test", 0, torch.device("cpu"))
    drawn = stream.batch(0, 1).support_x
    assert drawn.shape == (1, 2, 3)
    images = splits["test"].images
    assert isinstance(images, torch.Tensor)
    assert {tuple(row) for row in drawn[0].tolist()} <= {tuple(row) for row in images.tolist()}


def test_processes_that_need_the_same_pack_make_it_once(tmp_path: Path) -> None:
    first, second = Squares(), Squares()
    told: list[str] = []
    path = pack_path("squares", first, roots(tmp_path))
    waits = threading.Event()

    def wait(done: int, total: int, name: str) -> None:
        told.append(name)
        waits.set()

    path.parent.mkdir(parents=True)
    packs: list[Pack] = []
    with FileLock(path.with_suffix(".lock")):
        other = threading.Thread(target=lambda: packs.append(load_pack("squares", second, roots(tmp_path), wait)))
        other.start()
        assert waits.wait(30)
        assert told == ["waiting for another process that packs squares"]
        write_pack(path, Squares().pack(dataset_files("squares", roots(tmp_path)), silent))
    other.join(30)
    assert second.given == []
    assert packs[0].fingerprint == load_pack("squares", first, roots(tmp_path), silent).fingerprint


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    path = pack_path("squares", Squares(), roots(tmp_path))
    path.parent.mkdir(parents=True)
    lock = str(path.with_suffix(".lock"))
    code = f"import os, filelock; lock = filelock.FileLock({lock!r}); lock.acquire(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    told: list[str] = []
    load_pack("squares", Squares(), roots(tmp_path), lambda done, total, name: told.append(name))
    assert path.exists()
    assert not any("waiting" in name for name in told)


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


def test_a_lock_that_cannot_be_taken_is_told_in_a_sentence(tmp_path: Path) -> None:
    dataset = Squares()
    path = pack_path("squares", dataset, roots(tmp_path))
    path.with_suffix(".lock").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot write to the cache .*set METABENCH_CACHE"):
        load_pack("squares", dataset, roots(tmp_path), silent)
    assert dataset.given == []


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
    names = list(PluginManager.from_environment().datasets())
    assert {"folder", "glyphs", "omniglot"} < set(names)
    assert [line.split()[:2] for line in before.splitlines()[2 : 2 + len(names)]] == [[name, "no"] for name in names]
    assert "METABENCH_DATA   (not set)" in before
    assert f"METABENCH_CACHE  {tmp_path / 'cache'}" in before

    assert "glyphs: packed, 350 classes, 7000 images" in cli("prepare", "glyphs")
    assert "glyphs: was already packed" in cli("prepare", "glyphs")

    after = cli("list").splitlines()[2 + names.index("glyphs")].split()
    assert after[:4] == ["glyphs", "yes", "5.2", "MIT"]
    assert Path(after[4]).parent == tmp_path / "cache" / "glyphs"


def test_verify_reads_packs_and_names_those_that_changed(cli: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no packed copy of 'glyphs' in .*: metabench data prepare glyphs"):
        cli("verify", "glyphs")
    cli("prepare", "glyphs")
    assert "as it was packed: 350 classes, 7000 images" in cli("verify")
    assert cli("verify", "glyphs") == cli("verify")
    (path,) = packed_files("glyphs", DataRoots.from_environment(os.environ))
    with open(path, "rb+") as file:
        file.seek(5000)
        file.write(b"\xff\xfe")
    cli("prepare", "glyphs")
    with pytest.raises(DataError, match=rf"{path} is damaged: delete that file"):
        cli("verify")


def test_prepare_packs_a_class_in_a_file_where_a_run_looks(
    cli: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = DataRoots.from_environment(os.environ)
    load_local(tmp_path / "code" / "local.py", where, 0)
    (before,) = packed_files("local.py:Local", where)
    before.unlink()
    monkeypatch.chdir(tmp_path / "code")
    assert ": packed, 3 classes, 6 images" in cli("prepare", "./local.py:Local")
    assert packed_files("local.py:Local", where) == [before]
    assert ": was already packed" in cli("prepare", "./local.py:Local")


def test_prepare_refuses_overlapping_splits(cli: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "local.py"
    path.write_text(IN_FILE.replace("[i : i + 1]", "[:1]").replace("SHADE", "0"), encoding="utf-8")
    with pytest.raises(DataError, match="has 1 class in more than one split"):
        cli("prepare", f"{path}:Local")


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
