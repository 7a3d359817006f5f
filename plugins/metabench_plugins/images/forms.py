"""Find the classes of a tree of files: class folders, folders of splits, or lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from metabench.api import DataError
from metabench_plugins.images.decoding import ENDINGS, is_image
from metabench_plugins.images.lists import Row, read_csv, read_json, split_named
from metabench_plugins.images.paths import Paths
from metabench_plugins.images.splits import with_split
from metabench_plugins.images.trees import Tree, plain

Form: TypeAlias = Literal["classes", "splits", "csv", "json"]
_READERS = {"csv": read_csv, "json": read_json}
#: Number of files that a message names.
_NAMED = 3


@dataclass
class FoundClass:
    """The images of a class.

    Attributes:
        images: path in the tree of each image, by its name in the class.
        remarks: oddities for records.
    """

    images: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, path: str) -> None:
        """Add an image.

        Raises:
            DataError: another one has the name.
        """
        if self.images.setdefault(name, path) != path:
            raise DataError(_alike(path, self.images[name]))


@dataclass(frozen=True)
class Found:
    """The classes of a tree.

    Attributes:
        form: how the tree gives classes.
        classes: by name, sorted.
        lists: paths of the lists that were read.
    """

    form: Form
    classes: dict[str, FoundClass]
    lists: Sequence[str] = ()


def find_classes(tree: Tree, form: Form | None = None, depth: int = 1) -> Found:
    """Return the classes of a tree.

    A folder that is alone in its folder is a wrapper, as archives have one: it is looked into.

    Args:
        tree: the files.
        form: how the tree gives classes; None looks for lists, then for folders of splits, then for class folders.
        depth: how many folders make a class: 2 for ``group/class/``.

    Raises:
        DataError: no classes are found, or a list or class folder is not as it must be.
    """
    problems = list[DataError]()
    for start in _starts(tree):
        here = _Level(tree, start, depth)
        for candidate, find in here.forms().items():
            if form not in (None, candidate):
                continue
            try:
                found = find()
            except DataError as problem:
                if form is not None or candidate not in ("csv", "json"):
                    raise
                problems.append(problem)  # e.g. a list of something else beside class folders
                continue
            if found is not None:
                return _with_remarks(found, tree, problems)
    raise problems[0] if problems else DataError(_nothing_found(tree, form))


def find_in_list(tree: Tree, path: str) -> Found:
    """Return the classes of a list, ``.csv`` or ``.json``.

    Raises:
        DataError: the list is not as it must be, or listed files are missing.
    """
    form: Form = "csv" if path.lower().endswith(".csv") else "json"
    rows = _READERS[form](tree.text(path), tree.shown(path), "")
    return Found(form, classes_of_rows([(path, rows)], tree), [path])


class _Level:
    """The files below a folder of a tree.

    Args:
        tree: the files.
        start: the folder with a slash at its end; empty for the tree's own.
        depth: how many folders make a class.
    """

    def __init__(self, tree: Tree, start: str, depth: int) -> None:
        self._tree, self._start, self._depth = tree, start, depth
        self._paths = [path[len(start) :] for path in tree.files if path.startswith(start)]
        self._folders = [path[len(start) :] for path in tree.folders if path.startswith(start)]

    def forms(self) -> dict[Form, Callable[[], Found | None]]:
        """Return the forms in the order of the search."""
        return {
            "json": lambda: self._lists("json"),
            "csv": lambda: self._lists("csv"),
            "splits": self._split_folders,
            "classes": self._class_folders,
        }

    def _lists(self, form: Form) -> Found | None:
        """Return the classes of lists with the names of splits, or of the only CSV."""
        names = [path for path in self._paths if "/" not in path and path.lower().endswith(f".{form}")]
        of_splits = {name: split_named(PurePosixPath(name).stem) for name in names}
        chosen = [name for name in names if of_splits[name]]
        if not chosen and form == "csv" and len(names) == 1:
            chosen = names
        if not chosen:
            return None
        paths = [f"{self._start}{name}" for name in chosen]
        rows = [
            (path, _READERS[form](self._tree.text(path), self._tree.shown(path), of_splits[name]))
            for path, name in zip(paths, chosen, strict=True)
        ]
        return Found(form, classes_of_rows(rows, self._tree, self._start), paths)

    def _split_folders(self) -> Found | None:
        """Return the classes of folders with the names of splits."""
        with_images = {path.partition("/")[0] for path in self._paths if "/" in path and is_image(path)}
        splits = {name: split_named(name) for name in sorted(with_images)}
        if not all(splits.values()) or len(set(splits.values())) < 2:
            return None
        classes = dict[str, FoundClass]()
        for name, split in splits.items():
            _Level(self._tree, f"{self._start}{name}/", self._depth).add_class_folders(classes, split)
        return Found("splits", _sorted(classes)) if classes else None

    def _class_folders(self) -> Found | None:
        """Return the classes of class folders; None if there are none here."""
        top = [path for path in self._folders if "/" not in path]
        if not top or (len(top) == 1 and self._depth == 1 and self._wraps(top[0])):
            return None
        classes = dict[str, FoundClass]()
        self.add_class_folders(classes, "")
        return Found("classes", _sorted(classes)) if classes else None

    def add_class_folders(self, classes: dict[str, FoundClass], split: str) -> None:
        """Add the images of the class folders to the classes of their names.

        Raises:
            DataError: a class folder has no images.
        """
        members: dict[str, list[str]] = {path: [] for path in self._folders if path.count("/") == self._depth - 1}
        outside = list[str]()
        for path in self._paths:
            parts = path.split("/")
            if len(parts) > self._depth:
                members["/".join(parts[: self._depth])].append(path)
            elif is_image(path):
                outside.append(path)
        folder_of = dict[str, str]()
        for folder, paths in members.items():
            if folder_of.setdefault(plain(folder), folder) != folder:
                raise DataError(_alike(folder, folder_of[plain(folder)]))
            found = classes.setdefault(plain(folder), FoundClass())
            images = [path for path in paths if is_image(path)]
            others = [path for path in paths if not is_image(path)]
            if not images:
                raise DataError(self._without_images(folder, others))
            for path in images:
                name = plain(path[len(folder) + 1 :])
                found.add(with_split(split, name), f"{self._start}{path}")
            if others:
                found.remarks.append(_left_out(others, f"of class '{plain(folder)}'"))
        if outside and members:
            first = plain(min(members))
            classes[first].remarks.append(f"{_listed(outside, 'image')} in no class folder: left out")

    def _without_images(self, folder: str, others: Sequence[str]) -> str:
        found = f"{len(others)} other files, e.g. {others[0]}" if others else "no files"
        return (
            f"the class folder {self._tree.shown(self._start + folder)} has no images ({', '.join(ENDINGS)}), but "
            f"{found}: move it elsewhere, or put images into it"
        )

    def _wraps(self, folder: str) -> bool:
        """Return whether a folder has folders with images, and no images of its own."""
        images = [path for path in self._paths if path.startswith(f"{folder}/") and is_image(path)]
        return bool(images) and not any(path.count("/") == 1 for path in images)


def classes_of_rows(lists: Sequence[tuple[str, Sequence[Row]]], tree: Tree, start: str = "") -> dict[str, FoundClass]:
    """Return the classes of the rows of lists.

    Args:
        lists: path and rows of each list.
        tree: the files.
        start: the folder of the lists, with a slash at its end.

    Raises:
        DataError: listed files are missing, or one is listed for two classes of a split.
    """
    paths = Paths(tree, start)
    classes = dict[str, FoundClass]()
    label_of = dict[str, str]()
    missing = list[str]()
    for place, rows in lists:
        for row in rows:
            label = plain(row.label)
            found = paths.images_of(row)
            if not found:
                missing.append(f"{row.path} (in {tree.shown(place)})")
            for path in found:
                name = with_split(row.split, plain(path))
                if label_of.setdefault(name, label) != label:
                    raise DataError(
                        f"{tree.shown(place)} lists {row.path} as '{label_of[name]}' and as '{label}': keep one"
                    )
                classes.setdefault(label, FoundClass()).add(name, path)
    if missing:
        raise DataError(
            f"{_listed(missing, 'listed file')} missing in {tree.shown(start)}, and in its folder images: put the "
            "files there, or correct the list"
        )
    return _sorted(classes)


def _starts(tree: Tree) -> Iterable[str]:
    """Yield the tree's folder, and those that are alone in it one in the other."""
    start = ""
    while True:
        yield start
        inside = [folder for folder in tree.folders if folder.startswith(start) and "/" not in folder[len(start) :]]
        if len(inside) != 1:
            return
        start = f"{inside[0]}/"


def _with_remarks(found: Found, tree: Tree, problems: Sequence[DataError]) -> Found:
    """Add what concerns all classes to the remarks of the first one."""
    remarks = next(iter(found.classes.values())).remarks
    remarks += [f"a list was not read: {problem}" for problem in problems]
    if found.form in ("classes", "splits") and tree.links:
        remarks.append(f"{_listed(tree.links, 'link')} to a folder, or out of {tree.place.name}: not followed")
    return found


def _nothing_found(tree: Tree, form: Form | None) -> str:
    if form in ("csv", "json"):
        wanted = {"csv": "train.csv, val.csv, test.csv, or one CSV", "json": "base.json, val.json, novel.json"}[form]
        return f"{tree.place} has no {form.upper()} list of images ({wanted}): correct `form` or `root`"
    if form == "splits":
        return f"{tree.place} has no folders train, val and test with class folders: correct `form` or `root`"
    links = f" ({_listed(tree.links, 'link')} not followed)" if tree.links else ""
    images = sum(map(is_image, tree.files))
    has = f"has {images} images, but no class folders" if images else "has no class folders"
    return f"{tree.place} {has}{links}: put the images of each class into a folder of its name"


def _alike(one: str, other: str) -> str:
    return f"{one!a} and {other!a} have names that look alike, in two forms of Unicode: rename one"


def _sorted(classes: dict[str, FoundClass]) -> dict[str, FoundClass]:
    return {name: classes[name] for name in sorted(classes)}


def _left_out(others: Sequence[str], where: str) -> str:
    """Return a remark that counts and names files that are no images."""
    more = ", …" if len(others) > _NAMED else ""
    verb = "file that is no image was" if len(others) == 1 else "files that are no images were"
    return f"{len(others)} {verb} left out {where}: {', '.join(others[:_NAMED])}{more}"


def _listed(paths: Sequence[str], noun: str) -> str:
    """Return the number of paths, and the first ones."""
    more = ", …" if len(paths) > _NAMED else ""
    verb = "is" if len(paths) == 1 else "are"
    return f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'} ({', '.join(paths[:_NAMED])}{more}) {verb}"
