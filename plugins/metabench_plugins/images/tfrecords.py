"""Read TFRecord files of images without TensorFlow.

A file is a sequence of records: 8 bytes of the length, 4 of its checksum, the content, 4 of its checksum
(https://www.tensorflow.org/tutorials/load_data/tfrecord). The content is a ``tf.train.Example``, a protocol buffer. The
checksums (CRC-32C, which Python lacks) are not compared: the length, the fields or the image of a damaged record are
wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metabench.api import DataError

#: The length of a record with its checksum, and the checksum of the content.
_HEADER, _FOOTER = struct.Struct("<Q4x"), 4
#: Wire types of protocol buffers.
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Record:
    """A record of a file.

    Attributes:
        path: the file.
        offset: place of the content, in bytes.
        length: bytes of the content.
    """

    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """Return the content."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


def records_of(path: Path) -> list[Record]:
    """Return the records of a file, of which only the lengths are read.

    Raises:
        DataError: the file cannot be read, or ends within a record.
    """
    found: list[Record] = []
    try:
        size, offset = path.stat().st_size, 0
        with open(path, "rb") as file:
            while offset < size:
                file.seek(offset)
                header = file.read(_HEADER.size)
                length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
                end = offset + _HEADER.size + length + _FOOTER
                if end > size:
                    raise DataError(f"{path} ends within its record {len(found) + 1}: get the file again")
                found.append(Record(path, offset + _HEADER.size, length))
                offset = end
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return found


def features(example: bytes) -> dict[str, list[bytes] | list[int]]:
    """Return the bytes and whole numbers of a ``tf.train.Example``, by name; other features are left out.

    Raises:
        ValueError: it is none.
    """
    found: dict[str, list[bytes] | list[int]] = {}
    for entry in _inside(example, 1, 1):  # Example.features, Features.feature
        named = dict(_fields(entry))
        name, feature = named.get(1), named.get(2)
        if isinstance(name, bytes) and isinstance(feature, bytes):
            for kind, content in _fields(feature):
                if kind == 1 and isinstance(content, bytes):  # Feature.bytes_list
                    found[name.decode()] = [value for _, value in _fields(content) if isinstance(value, bytes)]
                elif kind == 3 and isinstance(content, bytes):  # Feature.int64_list
                    found[name.decode()] = list(_numbers(content))
    return found


def _inside(message: bytes, *path: int) -> Iterator[bytes]:
    """Yield the messages below a message, at the numbers of a path of fields."""
    for number, content in _fields(message):
        if number == path[0] and isinstance(content, bytes):
            if len(path) == 1:
                yield content
            else:
                yield from _inside(content, *path[1:])


def _numbers(content: bytes) -> Iterator[int]:
    """Yield the whole numbers of an ``Int64List``, packed or one by one; negative ones as their two's complement."""
    for _, value in _fields(content):
        if isinstance(value, int):
            yield value
        else:
            place = 0
            while place < len(value):
                number, place = _varint(value, place)
                yield number


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield number and content of each field of a message.

    Raises:
        ValueError: the message is damaged.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED_64, _FIXED_32):
            length = 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + length > len(message):
            raise ValueError("a field ends after its message")
        yield number, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and the place after it."""
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("a number does not end")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
