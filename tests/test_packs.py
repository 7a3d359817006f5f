from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from metabench.errors import DataError
from metabench.packs import ClassImages, Pack, atomic_file, read_pack, verify_pack, write_pack


def make(classes: int = 3, per_class: int = 4, side: int = 5) -> Pack:
    images = np.random.default_rng(0).integers(0, 256, (classes * per_class, 1, side, side), dtype=np.uint8)
    offsets = np.arange(classes + 1, dtype=np.int64) * per_class
    return Pack(images, offsets, tuple(f"class {index}" for index in range(classes)))


def test_a_written_pack_reads_back_unchanged(tmp_path: Path) -> None:
    pack = make()
    path = tmp_path / "new" / "pack.safetensors"
    write_pack(path, pack)
    found = read_pack(path)
    assert found is not None
    np.testing.assert_array_equal(found.images, pack.images)
    assert verify_pack(path).fingerprint == pack.fingerprint
    np.testing.assert_array_equal(found.offsets, pack.offsets)
    assert found.class_names == pack.class_names
    assert found.fingerprint == pack.fingerprint
    assert [file.name for file in path.parent.iterdir()] == ["pack.safetensors"]


def test_a_missing_pack_reads_as_none(tmp_path: Path) -> None:
    assert read_pack(tmp_path / "pack.safetensors") is None


@settings(deadline=None)  # it waits for the disk
@given(position=st.integers(0, 10**9))
def test_a_changed_byte_is_noticed(position: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("packs") / "pack.safetensors"
    write_pack(path, make())
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"pack\.safetensors is damaged: delete that file"):
        verify_pack(path)


@settings(deadline=None)  # it waits for the disk
@given(share=st.floats(0, 1), tail=st.booleans())
def test_a_changed_byte_outside_the_images_is_noticed_without_reading_them(
    share: float, tail: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("packs") / "pack.safetensors"
    pack = write_pack(path, make())
    content = bytearray(path.read_bytes())
    first, last = (4096 + pack.images.nbytes, len(content)) if tail else (0, 4096)
    content[min(last - 1, int(first + share * (last - first)))] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"pack\.safetensors is damaged: delete that file"):
        read_pack(path)


def test_reading_a_pack_maps_its_images(tmp_path: Path) -> None:
    path = tmp_path / "pack.safetensors"
    write_pack(path, make())
    one, other = read_pack(path), read_pack(path)
    assert one is not None
    assert other is not None
    with open(path, "rb+") as file:
        file.seek(4096)
        file.write(b"\x7f")
    assert one.images[0, 0, 0, 0] == other.images[0, 0, 0, 0] == 0x7F, "both see the page of the file"
    one.images[0, 0, 0, 0] = 5
    assert other.images[0, 0, 0, 0] == 0x7F, "a change is private"
    assert path.read_bytes()[4096] == 0x7F


def test_a_pack_is_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "pack.safetensors"
    pack = make()
    write_pack(path, pack, "a stamp")
    with safe_open(path, framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("rows"), pack.images)
        np.testing.assert_array_equal(file.get_tensor("offsets"), pack.offsets)
        assert file.metadata()["fingerprint"] == pack.fingerprint


def test_classes_that_come_one_by_one_make_the_same_pack(tmp_path: Path) -> None:
    pack = make()
    named = Pack(pack.images, pack.offsets, pack.class_names, tuple(f"{i}.png" for i in range(12)))
    for expected in (pack, named):
        streamed = write_pack(tmp_path / "streamed", (part for part in expected.classes()))
        assert streamed.fingerprint == expected.fingerprint
        assert streamed.image_names == expected.image_names
        assert verify_pack(tmp_path / "streamed").fingerprint == expected.fingerprint


def test_remarks_of_classes_are_kept_and_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    images = np.zeros((2, 1, 3, 3), np.uint8)
    plain = write_pack(tmp_path / "plain", [ClassImages("a", images)])
    marked = write_pack(tmp_path / "marked", [ClassImages("a", images, remarks=("odd",))])
    assert marked.remarks == ("odd",)
    assert marked.fingerprint == plain.fingerprint


def test_a_file_of_another_format_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "pack.safetensors"
    path.write_bytes(save({"images": np.zeros((2, 1, 3, 3), np.uint8)}))
    with pytest.raises(DataError, match="is damaged: delete that file"):
        read_pack(path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_pack_is_noticed(tmp_path: Path, share: float) -> None:
    path = tmp_path / "pack.safetensors"
    write_pack(path, make())
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(DataError, match="is damaged: delete that file"):
        read_pack(path)


def test_the_fingerprint_covers_images_offsets_and_names() -> None:
    pack = make()
    images = pack.images.copy()
    images[0, 0, 0, 0] ^= 1
    others = [
        Pack(images, pack.offsets, pack.class_names),
        Pack(pack.images, np.array([0, 3, 8, 12], dtype=np.int64), pack.class_names),
        Pack(pack.images, pack.offsets, ("class 0", "class 1", "another")),
        Pack(pack.images.transpose(0, 1, 3, 2), pack.offsets, pack.class_names),
        Pack(pack.images.reshape(12, 1, 25, 1), pack.offsets, pack.class_names),
    ]
    assert len({pack.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_a_full_disk_leaves_the_old_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pack.safetensors"
    old = make(classes=2)
    write_pack(path, old)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("metabench.files.os.fsync", full)
        with pytest.raises(DataError, match=r"No space left on device.*METABENCH_CACHE"):
            write_pack(path, make(classes=3))
    assert [file.name for file in tmp_path.iterdir()] == ["pack.safetensors"]
    found = read_pack(path)
    assert found is not None
    assert found.fingerprint == old.fingerprint


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
