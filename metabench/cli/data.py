"""`metabench data`: list, prepare, verify, import and inspect datasets."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metabench.cli.streams import say

if TYPE_CHECKING:
    from metabench.api import Inspection, Progress
    from metabench.packs import Pack

#: Columns of a description where standard output is no terminal.
_COLUMNS = 100


@click.group()
def data() -> None:
    """List, prepare, verify, import and inspect datasets.

    METABENCH_DATA lists directories with raw data, which are only read. Packed copies and downloads go to
    METABENCH_CACHE. METABENCH_OFFLINE=1 forbids downloads.
    """


@data.command("list")
def list_datasets() -> None:
    """List the datasets and their packed copies."""
    from tabulate import tabulate

    from metabench.data.packing import DataRoots, packed_files
    from metabench.registry.manager import PluginManager
    from metabench.text import one_line

    roots = DataRoots.from_environment(os.environ)
    rows: list[tuple[str, str, str, str, str]] = []
    for name, spec in PluginManager.from_environment().datasets().items():
        packs, licence = packed_files(name, roots), one_line(spec.licence or "unknown")
        rows += [(name, "yes", f"{path.stat().st_size / 2**20:.1f}", licence, str(path)) for path in packs]
        if not packs:
            rows.append((name, "no", "", licence, ""))
    say(tabulate(rows, headers=["dataset", "packed", "MiB", "licence", "path"], disable_numparse=True))
    say(f"\nMETABENCH_DATA   {os.pathsep.join(map(str, roots.sources)) or '(not set)'}")
    say(f"METABENCH_CACHE  {roots.cache}")


@data.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def prepare(names: tuple[str, ...]) -> None:
    """Pack and check datasets with default parameters; download them if needed.

    A name may be FILE.py:CLASS.
    """
    from metabench.api import EpisodeSource
    from metabench.cli.progress import pack_progress
    from metabench.data.packing import DataRoots, load_pack, load_splits, pack_path
    from metabench.registry.file_classes import absolute, is_local
    from metabench.registry.manager import PluginManager

    roots = DataRoots.from_environment(os.environ)
    manager = PluginManager.from_environment()
    # A run finds a class in a file by the absolute path of its suite.
    names = tuple(absolute(name, Path.cwd()) if is_local(name) else name for name in names)
    # Build all datasets first: a misspelt name is reported before any packing.
    for name, dataset in [(name, manager.build_dataset(name)) for name in names]:
        if isinstance(dataset, EpisodeSource):
            say(f"{name}: its episodes are made, there is nothing to pack")
            continue
        path = pack_path(name, dataset, roots)
        before = path.stat().st_mtime_ns if path.exists() else None
        with pack_progress() as progress:
            pack = load_pack(name, dataset, roots, progress)
            load_splits(name, dataset, roots, progress)
        outcome = "was already packed" if path.stat().st_mtime_ns == before else "packed"
        say(f"{name}: {outcome}, {_describe(pack, path)}")


@data.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Read packed copies, and compare them with their stored hashes.

    By default, all copies in METABENCH_CACHE. Runs read the hash, and not all images.
    """
    from functools import partial

    from metabench.cli.progress import pack_progress
    from metabench.data.packing import DataRoots, all_packed_files, packed_files
    from metabench.errors import DataError
    from metabench.packs import verify_pack

    roots = DataRoots.from_environment(os.environ)
    files = {name: packed_files(name, roots) for name in names} or {"": all_packed_files(roots)}
    missing = next((name for name, paths in files.items() if name and not paths), None)
    if missing is not None:
        raise DataError(f"there is no packed copy of '{missing}' in {roots.cache}: metabench data prepare {missing}")
    damaged = []
    for path in [path for paths in files.values() for path in paths]:
        try:
            with pack_progress() as progress:
                pack = verify_pack(path, partial(_hashing, progress))
            say(f"as it was packed: {_describe(pack, path)}")
        except DataError as error:
            damaged.append(str(error))
    if damaged:
        raise DataError("\n".join(damaged))


def _hashing(progress: Progress, done: int, total: int) -> None:
    progress(done >> 20, total >> 20, "hashing MiB")


@data.command("import")
@click.argument("name")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
def import_dataset(name: str, path: Path) -> None:
    """Pack the dataset NAME from the directory PATH.

    The result replaces any packed copy of NAME.
    """
    from dataclasses import replace

    from metabench.api import EpisodeSource
    from metabench.cli.progress import pack_progress
    from metabench.data.packing import DataRoots, make_pack, pack_path
    from metabench.errors import DataError
    from metabench.registry.manager import PluginManager

    roots = replace(DataRoots.from_environment(os.environ), sources=(path,), download=False)
    dataset = PluginManager.from_environment().build_dataset(name)
    if isinstance(dataset, EpisodeSource):
        raise DataError(f"the episodes of '{name}' are made, there is nothing to import")
    with pack_progress() as progress:
        pack = make_pack(name, dataset, roots, progress)
    say(f"{name}: imported from {path}, {_describe(pack, pack_path(name, dataset, roots))}")


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
def inspect(path: Path) -> None:
    """Say what is in PATH, images or vectors in a folder or file, and which suite fits.

    Every image is decoded; nothing is written.
    """
    from metabench.cli.streams import output_encoding, terminal_width
    from metabench.reporting.inspection import inspection_text

    for number, (name, found) in enumerate(_inspected(path).items()):
        say("\n" if number else "", end="")
        say(inspection_text(name, found, terminal_width() or _COLUMNS, output_encoding()))
        if found.new_suite:
            say(f"\nnext: metabench data new-suite {shlex.quote(str(path))}")


@data.command("new-suite")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="The new file. Default: NAME.yaml in this folder.")
def new_suite(path: Path, output: Path | None) -> None:
    """Write a suite that runs on PATH, images or vectors in a folder or file.

    Ways, shots and queries fit the classes found. No file is overwritten.
    """
    from metabench.errors import DataError, StoreError
    from metabench.files import atomic_file

    target = output or Path(f"{path.absolute().stem}.yaml")
    if os.path.lexists(target):
        raise StoreError(f"{target} exists already: choose another file with --output")
    found = _inspected(path)
    text = next((one.new_suite for one in found.values() if one.new_suite), "")
    if not text:
        suites = [f"metabench run {suite}" for one in found.values() for suite in one.suites]
        problems = [problem for one in found.values() for problem in one.problems]
        reason = f"these suites read {path}: {', '.join(suites)}" if suites else "\n".join(problems)
        raise DataError(f"no suite is written: {reason}")
    try:
        with atomic_file(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror}. Choose another place with --output") from error
    say(f"wrote {target}\nnext:  metabench run {shlex.quote(str(target))} --profile smoke")


def _inspected(path: Path) -> dict[str, Inspection]:
    """Return the descriptions of a place, by dataset.

    Raises:
        DataError: it is not there, or no dataset reads it.
    """
    from metabench.cli.progress import pack_progress
    from metabench.data.inspecting import dataset_classes, inspect_path
    from metabench.data.packing import DataRoots
    from metabench.errors import DataError
    from metabench.registry.manager import PluginManager

    if not path.exists():
        raise DataError(f"there is no file or folder {path}: correct the path")
    roots = DataRoots.from_environment(os.environ)
    classes = dataset_classes(PluginManager.from_environment())
    with pack_progress() as progress:
        found = inspect_path(path.absolute(), classes, roots, progress)
    if not found:
        raise DataError(f"no dataset reads {path}: `metabench list` names the datasets")
    return found


def _describe(pack: Pack, path: Path) -> str:
    mib = path.stat().st_size / 2**20
    return f"{len(pack.class_names)} classes, {len(pack.images)} images, {mib:.1f} MiB in {path}"
