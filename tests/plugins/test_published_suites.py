"""The suites of published datasets, on files that a script makes; and what `data inspect` says of such files."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import published_files as written
from command_line import Command
from metabench.data.packing import DataRoots
from metabench.planning.cells import Cell
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import read_suite, resolve
from metabench.records.store import Store
from metabench.registry.manager import PluginManager
from metabench_plugins.raw.dataset import PublishedDataset

#: Images of a class: 5 shots and the 16 queries of DKT, or 50 and 15.
FEW, MANY = 21, 65
Write = Callable[[Path], None]

#: The suites, and the files of the datasets that they read: folder, writer, number of images, and of those of a class.
SUITES: dict[str, dict[str, tuple[str, Write, int, int | None]]] = {
    "miniimagenet": {
        "miniimagenet": ("miniimagenet", partial(written.mini_caches, count=FEW, side=28), 100 * FEW, FEW)
    },
    "tieredimagenet": {
        "tieredimagenet": ("tieredimagenet", partial(written.tiered_arrays, count=FEW, side=16), 608 * FEW, None)
    },
    "cifarfs": {"cifarfs": ("cifarfs", partial(written.cifar100, count=FEW), 100 * FEW, FEW)},
    "fc100": {"fc100": ("fc100", partial(written.cifar100, count=FEW), 100 * FEW, FEW)},
    "cub": {"cub": ("CUB_200_2011", partial(written.cub, count=FEW), 200 * FEW, None)},
    "cross-char": {"emnist": ("EMNIST", partial(written.emnist, count=FEW), 62 * FEW, None)},
    "cross-domain": {
        "miniimagenet": ("miniimagenet", partial(written.mini_caches, count=MANY, side=28), 6500, MANY),
        "cub": ("CUB_200_2011", partial(written.cub, count=35), 7000, None),
        "cropdisease": ("CropDiseases", partial(written.cropdisease, count=MANY), 38 * MANY, None),
        "eurosat": ("EuroSAT", partial(written.eurosat, count=MANY), 10 * MANY, None),
        "isic": ("ISIC", partial(written.isic, count=MANY), 7 * MANY, None),
        "chestx": ("chestX", partial(written.chestx, count=MANY), 7 * MANY, None),
    },
}


@pytest.fixture(scope="session")
def omniglot() -> list[str]:
    """Return the folders of METABENCH_DATA that hold Omniglot, before a test sets other ones."""
    sources = DataRoots.from_environment(os.environ).sources
    return [str(source) for source in sources if (source / "omniglot").is_dir()]


@pytest.fixture
def files(tmp_path: Path, plugins: PluginManager, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that writes the files of a suite into METABENCH_DATA, and lets datasets expect as many."""

    def write(suite: str) -> None:
        for name, (place, make, images, of_class) in SUITES[suite].items():
            make(tmp_path / "data" / place)
            cls = plugins.dataset_class(name)
            assert issubclass(cls, PublishedDataset)
            monkeypatch.setattr(cls, "images", images)
            monkeypatch.setattr(cls, "images_per_class", of_class)

    return write


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "few_latencies")
@pytest.mark.parametrize("suite", SUITES)
def test_the_smoke_profile_runs_and_shows_what_is_published(
    metabench: Command,
    files: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plugins: PluginManager,
    omniglot: list[str],
    suite: str,
) -> None:
    if suite == "cross-char" and not omniglot:
        pytest.skip("real Omniglot not found: set METABENCH_DATA to the folder that holds omniglot/")
    files(suite)
    monkeypatch.setenv("METABENCH_DATA", os.pathsep.join([str(tmp_path / "data"), *omniglot]))
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METABENCH_OFFLINE", "1")
    cells = make_plan(*resolve(read_suite(plugins.suite_path(suite)), "smoke"), plugins)
    # Each suite's tests in a part of its cells, of which all others differ in shots or methods only.
    only = {"algorithm": {"protonet", "simpleshot"}} if suite == "cross-domain" else {"shot": {"1"}}
    cells = [cell for cell in cells if all(str(cell.labels[key]) in some for key, some in only.items())]
    chosen = [part for key, some in only.items() for part in ("--only", f"{key}={','.join(sorted(some))}")]
    ended = metabench("run", suite, "--profile", "smoke", "--output", "out", "--in-process", *chosen)
    assert ended.code == 0, ended.err
    records = Store(Path("out")).records()
    assert len(records) == len(cells)
    assert {record.status for record in records} == {"ok"}
    table = metabench("leaderboard", "out", "--format", "csv")
    assert table.code == 0, table.err
    rows = list(csv.DictReader(table.out.splitlines()))
    # Some results are of networks that were trained on another dataset.
    elsewhere = suite.startswith("cross")
    published = {
        (result.dataset, result.algorithm, result.way, result.shot)
        for result in plugins.published_results()
        if ("trained_on.name" in result.variant) == elsewhere
    }
    shown = {(row["dataset"], row["algorithm"], int(row["way"]), int(row["shot"])) for row in rows if row["published"]}
    assert shown == {cell for cell in map(kind, cells) if cell in published}
    assert shown


def kind(cell: Cell) -> tuple[str, str, int, int]:
    """Return what a published result must be of, to be shown beside a cell."""
    return cell.dataset.name, cell.algorithm.name, cell.shape.way, cell.shape.shot


@pytest.mark.parametrize("suite", ["miniimagenet", "tieredimagenet", "cifarfs", "fc100", "cub"])
@pytest.mark.usefixtures("one_thread")
def test_inspect_says_which_suite_reads_the_files(
    metabench: Command, files: Callable[[str], None], tmp_path: Path, suite: str
) -> None:
    files(suite)
    ended = metabench("data", "inspect", str(tmp_path / "data" / SUITES[suite][suite][0]))
    assert ended.code == 0, ended.err
    assert f"read by     {suite}: " in ended.out
    assert f"fitting suites: {suite}" in ended.out


@pytest.mark.usefixtures("one_thread")
def test_inspect_says_what_an_incomplete_dataset_lacks(metabench: Command, tmp_path: Path) -> None:
    written.eurosat(tmp_path / "EuroSAT")
    ended = metabench("data", "inspect", str(tmp_path / "EuroSAT"))
    assert ended.code == 0, ended.err
    text = " ".join(ended.out.split())
    assert "in the way of a run: 1" in text
    assert "has 30 images in 10 classes of EuroSAT, expected 27000: get the original files again" in text
    assert "fitting suites" not in text


@pytest.mark.usefixtures("one_thread")
def test_photographs_of_other_classes_of_imagenet_are_a_folder_of_one_s_own(metabench: Command, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        written.class_folders(tmp_path / "mine" / split, [f"n0000000{number}" for number in range(3)], 2)
    ended = metabench("data", "inspect", str(tmp_path / "mine"))
    assert ended.code == 0, ended.err
    assert ended.out.startswith("read by     folder: ")
