"""Image files for tests: noise, damage and bombs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return a colour image of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """Return an image as the content of a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(seed: int) -> bytes:
    """Return the content of a small PNG file; other seeds give other images."""
    return encoded(noise(12, 16, seed))


def bomb(width: int, height: int) -> bytes:
    """Return a PNG file whose header promises many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write_files(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write files below a folder, by relative path; return the folder."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def class_files(classes: str = "abcdefghij", images: int = 3, start: str = "") -> dict[str, bytes]:
    """Return pictures in class folders of one letter, all different, by path."""
    return {
        f"{start}{name}/{i}.png": picture(1000 * ord(name) + i + 100_000 * len(start))
        for name in classes
        for i in range(images)
    }
