"""TFRecord files of images, written by TensorBoard's writer and protobuf's encoder."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

_BYTES, _FLOAT, _INT64, _STRING, _MESSAGE = 12, 2, 3, 9, 11
_OPTIONAL, _REPEATED = 1, 3


@cache
def _example_class() -> type[Message]:
    """Return ``tf.train.Example``, declared as in TensorFlow's ``example.proto`` and ``feature.proto``."""
    file = descriptor_pb2.FileDescriptorProto(name="records_of_images.proto", package="records", syntax="proto3")

    def declare(name: str, *fields: tuple[str, int, int, int, str]) -> descriptor_pb2.DescriptorProto:
        message = file.message_type.add(name=name)
        for field, number, label, kind, of in fields:
            type_name = f".records.{of}" if of else None
            message.field.add(name=field, number=number, label=label, type=kind, type_name=type_name)
        return message

    declare("BytesList", ("value", 1, _REPEATED, _BYTES, ""))
    declare("FloatList", ("value", 1, _REPEATED, _FLOAT, ""))
    declare("Int64List", ("value", 1, _REPEATED, _INT64, ""))
    declare(
        "Feature",
        ("bytes_list", 1, _OPTIONAL, _MESSAGE, "BytesList"),
        ("float_list", 2, _OPTIONAL, _MESSAGE, "FloatList"),
        ("int64_list", 3, _OPTIONAL, _MESSAGE, "Int64List"),
    )
    features = declare("Features", ("feature", 1, _REPEATED, _MESSAGE, "Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_OPTIONAL, type=_STRING)
    entry.field.add(name="value", number=2, label=_OPTIONAL, type=_MESSAGE, type_name=".records.Feature")
    declare("Example", ("features", 1, _OPTIONAL, _MESSAGE, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("records.Example"))


def example(**features: Any) -> bytes:
    """Return a serialised ``tf.train.Example`` of lists of bytes, floats and whole numbers."""
    message: Any = _example_class()()
    for name, values in features.items():
        kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(values[0])]
        getattr(message.features.feature[name], kind).value.extend(values)
    # Deterministic, since test cases are made of these bytes: workers must collect the same cases.
    return bytes(message.SerializeToString(deterministic=True))


def write_records(path: Path, contents: list[bytes]) -> None:
    """Write a TFRecord file."""
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for content in contents:
            writer.write(content)


def image_file(seed: int, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> bytes:
    """Return a PNG file of noise, of (width, height) pixels."""
    width, height = size
    shape = (height, width, 3)[: 3 if mode == "RGB" else 2]
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_source(folder: Path, sizes: list[int], **spec: Any) -> None:
    """Write a source of Meta-Dataset.

    Args:
        folder: its folder, which is made.
        sizes: number of images of each class.
        spec: the content of ``dataset_spec.json`` beside class names and file pattern.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        contents = [example(image=[image_file(100 * number + i)], label=[number]) for i in range(size)]
        write_records(folder / f"{number}.tfrecords", contents)
    names = {str(number): f"class {number}" for number in range(len(sizes))}
    common = {"name": folder.name, "class_names": names, "file_pattern": "{}.tfrecords", "path": "elsewhere"}
    (folder / "dataset_spec.json").write_text(json.dumps({**common, **spec}), encoding="utf-8")
