"""`folder` has a message for every hostile folder, leaves nothing half-written, and reads what can be read."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metabench.api import DataError
from metabench.data.packing import DataRoots, LoadedDataset, load_splits
from metabench.packs import verify_pack
from metabench.text import visible_lines
from metabench_plugins.datasets.folder import Folder, FolderConfig
from metabench_plugins.images import trees
from picture_files import bomb, class_files, encoded, noise, picture, write_files

#: A sound folder of ten classes of three images, to be spoilt.
SOUND = class_files()


def loaded(root: Path, cache: Path, **params: Any) -> LoadedDataset:
    dataset = Folder(FolderConfig(**{"root": str(root), "image_size": 8, **params}))
    return load_splits("folder", dataset, DataRoots((), cache), lambda done, total, what: None)


@dataclass
class Hostile:
    """A folder that is refused.

    Attributes:
        message: a pattern of the message.
        files: files beside, or in place of, those of the sound folder.
        sound: whether the sound folder is there.
        spoil: changes the folder; may return another root.
        params: parameters of the dataset.
        packs: whether the images are sound, and only their division is refused.
    """

    message: str
    files: dict[str, bytes | str] = field(default_factory=dict)
    sound: bool = False
    spoil: Callable[[Path], Path | None] = lambda root: None
    params: dict[str, Any] = field(default_factory=dict)
    packs: bool = False


def in_zip(*changes: Callable[[zipfile.ZipFile], None]) -> Callable[[Path], Path]:
    def spoil(root: Path) -> Path:
        place = root.parent / "data.zip"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in SOUND.items():
                archive.writestr(path, content)
            for change in changes:
                change(archive)
        return place

    return spoil


def with_other_content(root: Path) -> Path:
    """Change a byte of an image in an archive, whose checksum then differs."""
    place = root.parent / "data.zip"
    with zipfile.ZipFile(place, "w") as archive:
        for path, content in SOUND.items():
            archive.writestr(path, content)
    content = bytearray(place.read_bytes())
    content[content.index(SOUND["c/1.png"]) + 60] ^= 255
    place.write_bytes(content)
    return place


def encrypted(root: Path) -> Path:
    """Mark the members of an archive as encrypted."""
    place = in_zip()(root)
    content = bytearray(place.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 1)
    place.write_bytes(content)
    return place


def pipe(root: Path) -> None:
    (root / "z").mkdir()
    os.mkfifo(root / "z" / "0.png")


def links_in_place_of_folders(root: Path) -> None:
    for name in "abc":
        (root / name).rename(root.parent / f"real {name}")
        (root / name).symlink_to(root.parent / f"real {name}", target_is_directory=True)


def only(letters: str) -> dict[str, bytes | str]:
    return {path: content for path, content in SOUND.items() if path[0] in letters}


def damaged(content: bytes, name: str = "d/1.png") -> dict[str, bytes | str]:
    return {name: content}


PNG, JPEG = encoded(noise(40, 40)), encoded(noise(40, 40), "JPEG")
UNREADABLE = r"1 image cannot be read; replace it, or leave it out with `damaged: skip`:\n  \S*d/1\.\w+ \("

REFUSED = {
    "no folder": Hostile(
        r"there is no folder \S*nowhere: correct the parameter `root`", spoil=lambda root: root / "nowhere"
    ),
    "nothing in it": Hostile(r"data has no class folders: put the images of each class into a folder of its name"),
    "hidden files only": Hostile("has no class folders", {".a/1.png": PNG, ".DS_Store": "x", "__MACOSX/a/1.png": PNG}),
    "images in no folder": Hostile(
        "has 2 images, but no class folders: put the images of each class into a folder", {"1.png": PNG, "2.png": PNG}
    ),
    "a class of text files": Hostile(
        r"class folder \S*z has no images \(.*\), but 2 other files, e\.g\. z/a\.txt: move it elsewhere",
        {"z/a.txt": "", "z/b.txt": ""},
        sound=True,
    ),
    "an empty class": Hostile(
        r"class folder \S*z has no images \(.*\), but no files", sound=True, spoil=lambda root: (root / "z").mkdir()
    ),
    "one class": Hostile(
        r"has 1 class: train, val and test need one each\. .*`split: {by: image}`",
        only("a"),
        packs=True,
    ),
    "two classes": Hostile(
        "has 2 classes: train, val and test need one each",
        only("ab"),
        packs=True,
    ),
    "an empty file": Hostile(UNREADABLE, damaged(b""), sound=True),
    "a cut PNG": Hostile(UNREADABLE, damaged(PNG[:900]), sound=True),
    "a cut JPEG": Hostile(UNREADABLE, damaged(JPEG[: len(JPEG) // 2], "d/1.jpg"), sound=True),
    "a web page in place of an image": Hostile(UNREADABLE, damaged(b"<html>404</html>", "d/1.jpg"), sound=True),
    "a PNG with a strange chunk": Hostile(UNREADABLE, damaged(PNG.replace(b"IDAT", b"IDAX")), sound=True),
    "a PNG without pixels": Hostile(UNREADABLE, damaged(bomb(0, 7)), sound=True),
    "a bomb of 50 000 by 50 000 pixels": Hostile(
        UNREADABLE + "more than 178956970 pixels", damaged(bomb(50_000, 50_000)), sound=True
    ),
    "a smaller bomb": Hostile(
        UNREADABLE + "10000×10000 pixels, more than 89478485", damaged(bomb(10_000, 10_000)), sound=True
    ),
    "many damaged files": Hostile(
        r"25 images cannot be read.*(\n  \S*z/\d+\.png \(.*\)){20}\n  … and 5 more$",
        {f"z/{i}.png": b"" for i in range(25)},
        sound=True,
    ),
    "nothing but damage, skipped": Hostile(
        r"2 images cannot be read; their classes would be empty: replace the files, or remove the classes",
        {"z/1.png": b"", "z/2.png": b"text"},
        sound=True,
        params={"damaged": "skip"},
    ),
    "a copy in another split": Hostile(
        r"image in more than one split, e\.g\. image '\w+\.png' of train \(class '[a-j]'\) is image",
        {f"{name}/copy.png": SOUND["a/0.png"] for name in "abcdefghij"},
        sound=True,
        packs=True,
    ),
    "two class folders that look alike": Hostile(
        r"'(e\\u0301|\\xe9)' and '(e\\u0301|\\xe9)' have names that look alike, in two forms of Unicode: rename one",
        {"\u00e9/1.png": PNG, "e\u0301/1.png": JPEG},
        sound=True,
    ),
    "two images that look alike": Hostile(
        "'.*' and '.*' have names that look alike", {"a/\u00e9.png": PNG, "a/e\u0301.png": JPEG}, sound=True
    ),
    "a link in place of each folder": Hostile(
        r"has no class folders \(3 links \(a, b, c\) are not followed\)", only("abc"), spoil=links_in_place_of_folders
    ),
    "a pipe named as an image": Hostile(r"class folder \S*z has no images", sound=True, spoil=pipe),
    "an image as the root": Hostile(
        r"1\.png is neither a folder, nor a list \(\.csv, \.json\), nor a zip archive",
        {"1.png": PNG},
        spoil=lambda root: root / "1.png",
    ),
    "an archive that is none": Hostile(
        "nor a zip archive that can be read", {"data.zip": "text"}, spoil=lambda root: root / "data.zip"
    ),
    "a cut archive": Hostile(
        "nor a zip archive that can be read",
        {},
        spoil=lambda root: write_files(root, {"cut.zip": in_zip()(root).read_bytes()[:3000]}) / "cut.zip",
    ),
    "an archive with a password": Hostile(r"data\.zip is encrypted: unpack it", spoil=encrypted),
    "an archive without images": Hostile(
        "has no class folders", spoil=lambda root: write_files(root, {"e.zip": b"PK\x05\x06" + bytes(18)}) / "e.zip"
    ),
    "an archive with a wrong checksum": Hostile(
        r"1 image cannot be read.*\n  \S*data\.zip/c/1\.png \(BadZipFile", spoil=with_other_content
    ),
    "an archive that explodes": Hostile(
        r"1 image cannot be read.*\n  \S*data\.zip/d/x\.png \(it has 300 MiB when unpacked, more than 256\)",
        spoil=in_zip(lambda archive: archive.writestr("d/x.png", bytes(300 << 20))),
    ),
    "an empty list": Hostile(r"list\.csv is empty", {"list.csv": ""}),
    "a list of nothing": Hostile("has a header and no images", {"list.csv": "filename,label\n"}),
    "a list of missing files": Hostile(
        r"4 listed files \(x0\.png \(in \S*list\.csv\), .*, …\) are missing in",
        {"list.csv": "".join(f"x{i}.png,a\n" for i in range(4))},
    ),
    "a list without labels": Hostile("line 2: it has no label", {"list.csv": "filename,label\na.png,\n"}),
    "a list of unknown columns": Hostile("does not tell file names from labels", {"list.csv": "x,y,z\n1,2,3\n"}),
    "an image of two classes": Hostile(
        "lists 1.png as 'cat' and as 'dog': keep one", {"1.png": PNG, "list.csv": "1.png,cat\n1.png,dog\n"}
    ),
    "a list with a strange split": Hostile(
        "line 2: the split is 'cold': it must be train, val or test", {"list.csv": "file,label,split\n1.png,cat,cold\n"}
    ),
    "a list in UTF-16": Hostile("is no text in UTF-8", {"list.csv": "filename,label\na.png,ä\n".encode("utf-16")}),
    "a list that is a folder": Hostile(r"has no class folders|has no images", {"list.csv/x.txt": ""}),
    "JSON cut in the middle": Hostile(r"base\.json is no JSON", {"base.json": '{"image_names": ['}),
    "JSON with a wrong label": Hostile(
        "image_label 7, which is no index",
        {"base.json": json.dumps({"image_names": ["a"], "image_labels": [7], "label_names": ["x"]})},
    ),
    "JSON of missing folders": Hostile(
        r"1 listed file \(nowhere \(in \S*val\.json\)\) is missing in",
        {"val.json": json.dumps({"class_names": ["x"], "class_roots": ["nowhere"]})},
    ),
    "no validation split": Hostile(
        r"has only train and test, and val would be empty: add them, or divide the classes with `split: {by: ratio}`",
        {**class_files("abc", start="train/"), **class_files("def", start="test/")},
        packs=True,
    ),
    "a class in two splits": Hostile(
        r"has 1 of 5 classes in more than one split, e\.g\. 'c'",
        {**class_files("abc", start="train/"), **class_files("c", start="val/"), **class_files("de", start="test/")},
        packs=True,
    ),
    "an empty class of a split": Hostile(
        r"class folder \S*val/z has no images",
        {**class_files("abc", start="train/"), **class_files("d", start="val/"), "val/z/notes.txt": ""},
    ),
    "an unknown excluded class": Hostile(
        r"exclude names 'aa', which is no class of \S*data",
        sound=True,
        params={"exclude": ("aa",)},
        packs=True,
    ),
    "everything excluded": Hostile(
        "has no classes left",
        sound=True,
        params={"exclude": tuple("abcdefghij"), "split": {"by": "image"}},
        packs=True,
    ),
    "an unknown class in a list of classes": Hostile(
        "split.val names 'x', which is no class of",
        sound=True,
        params={"split": {"by": "classes", "train": ("a",), "val": ("x",), "test": ("b",)}},
        packs=True,
    ),
    "a class in two lists of classes": Hostile(
        "split.test names 'a', which is in train, too: keep one",
        sound=True,
        params={"split": {"by": "classes", "train": ("a",), "val": ("b",), "test": ("a",)}},
        packs=True,
    ),
    "two images a class, divided by image": Hostile(
        r"2 classes \('a', 'b'\) have fewer than 3 images, and `split: {by: image}` puts one into each split",
        {f"{name}/{i}.png": picture(ord(name) + i) for name in "ac" for i in (0, 40)}
        | {"b/1.png": PNG, "c/2.png": JPEG},
        params={"split": {"by": "image"}},
        packs=True,
    ),
    "splits that are not given": Hostile(
        "has no splits, and train and val and test would be empty",
        sound=True,
        params={"split": {"by": "given"}},
        packs=True,
    ),
    "no list of the form": Hostile(
        r"has no CSV list of images \(train\.csv, val\.csv, test\.csv, or one CSV\)", sound=True, params={"form": "csv"}
    ),
    "no folders of splits": Hostile(
        "has no folders train, val and test with class folders", sound=True, params={"form": "splits"}
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_folder_has_a_message_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    hostile = REFUSED[name]
    root = write_files(tmp_path / "data", {**(SOUND if hostile.sound else {}), **hostile.files})
    root.mkdir(exist_ok=True)
    place = hostile.spoil(root) or root
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(DataError, match=f"(?s){hostile.message}") as caught:
        loaded(place, tmp_path / "cache", **hostile.params)
    assert visible_lines(str(caught.value)) == str(caught.value)
    assert len(str(caught.value)) < 4000
    assert sorted(str(path) for path in tmp_path.rglob("*") if "cache" not in path.parts) == before
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len(written) == hostile.packs, "a pack is whole or not there"
    assert all(verify_pack(path) for path in written)


# ------------------------------------------------------------------------------------------- what can be read


def images(data: LoadedDataset) -> dict[str, int]:
    """Return the number of images of each class."""
    return {
        name: count
        for split in data.splits.values()
        for name, count in zip(split.class_names, split.offsets.diff().tolist(), strict=True)
    }


def test_links_are_followed_inside_the_folder_only(tmp_path: Path) -> None:
    root = write_files(tmp_path / "data", SOUND)
    (root / "a" / "circle").symlink_to(root, target_is_directory=True)
    (root / "b" / "self.png").symlink_to(root / "b" / "self.png")
    (root / "b" / "broken.png").symlink_to(root / "nowhere.png")
    outside = write_files(tmp_path / "outside", {"x.png": PNG}) / "x.png"
    (root / "c" / "outside.png").symlink_to(outside)
    (root / "d" / "other.png").symlink_to(root / "d" / "0.png")
    found = loaded(root, tmp_path / "cache")
    assert images(found) == {name: 3 + (name == "d") for name in "abcdefghij"}
    (remark,) = found.remarks
    assert remark == ("4 links (a/circle, b/broken.png, b/self.png, …) are to a folder, or out of data: not followed")


def test_names_of_any_characters_are_read(tmp_path: Path) -> None:
    names = ["猫", "chien à lunettes", "a\nb", "'quoted' \"names\"", "\u202egnp.txt", "-rf", "%s {x} \\", "e\u0301"]
    root = write_files(
        tmp_path / "data",
        {f"{name}/{name[:3]} {i}.PNG": picture(10 * c + i) for c, name in enumerate(names) for i in range(2)},
    )
    found = loaded(root, tmp_path / "cache")
    assert images(found) == {name.replace("e\u0301", "\u00e9"): 2 for name in names}


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    root = write_files(tmp_path / "data", SOUND)
    try:
        os.rename(os.fsencode(root / "a"), os.fsencode(root) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system refuses names that are no text")
    assert "caf\\udce9" in images(loaded(root, tmp_path / "cache"))


def test_files_that_systems_add_are_ignored(tmp_path: Path) -> None:
    added = {f"a/{name}": b"x" for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini")}
    root = write_files(tmp_path / "data", {**SOUND, **added, "__MACOSX/a/._0.png": b"x", ".git/a.png": b"x"})
    found = loaded(root, tmp_path / "cache")
    assert images(found) == dict.fromkeys("abcdefghij", 3)
    assert found.remarks == ()


def test_damaged_files_are_skipped_on_request_and_remarked(tmp_path: Path) -> None:
    root = write_files(tmp_path / "data", {**SOUND, "b/0.png": b"", "b/1.png": PNG[:900]})
    found = loaded(root, tmp_path / "cache", damaged="skip")
    assert images(found) == {name: 1 if name == "b" else 3 for name in "abcdefghij"}
    (remark,) = found.remarks
    assert remark.startswith("2 damaged files were skipped in class 'b': ")


def test_one_image_a_class_is_read(tmp_path: Path) -> None:
    assert images(loaded(write_files(tmp_path / "data", class_files("abcde", 1)), tmp_path)) == dict.fromkeys(
        "abcde", 1
    )


def test_images_of_all_shapes_and_modes_are_read(tmp_path: Path) -> None:
    strange = {
        "a/pixel.png": encoded(Image.new("RGB", (1, 1), (1, 2, 3))),
        "a/strip.png": encoded(noise(1, 5000)),
        "b/animated.gif": encoded(noise(9, 9), "GIF", save_all=True, append_images=[noise(9, 9, 1)]),
        "b/png in fact.jpg": picture(77),
        "c/sixteen.png": encoded(Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160)),
        "c/cmyk.jpg": encoded(noise(9, 9).convert("CMYK"), "JPEG"),
        "d/float.tiff": encoded(Image.fromarray(np.random.default_rng(0).random((9, 9), np.float32)), "TIFF"),
        "d/deep/er/and/deeper/a.webp": encoded(noise(9, 9, 5), "WEBP"),
    }
    found = loaded(write_files(tmp_path / "data", {**SOUND, **strange}), tmp_path / "cache")
    assert images(found) == {name: 5 if name in "abcd" else 3 for name in "abcdefghij"}


def test_an_archive_of_another_system_is_read(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, image in SOUND.items():
            archive.writestr(zipfile.ZipInfo("my images\\" + path.replace("/", "\\")), image)
        archive.writestr("../escape.png", PNG)
        archive.writestr("/absolute/1.png", PNG)
        archive.writestr("__MACOSX/my images/a/._0.png", b"x")
    place = write_files(tmp_path, {"data.zip": content.getvalue()}) / "data.zip"
    assert images(loaded(place, tmp_path / "cache")) == dict.fromkeys("abcdefghij", 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data.zip"], "nothing is unpacked"


def test_a_list_larger_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST_BYTES", 10)
    root = write_files(tmp_path / "data", {"list.csv": "filename,label\n1.png,a\n"})
    with pytest.raises(DataError, match="too much for a list of images"):
        loaded(root, tmp_path / "cache")
