"""Files of vectors, of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from safetensors.torch import save_file

KINDS = (".npz", ".safetensors", ".parquet")


def write_vectors(path: Path, **arrays: Any) -> Path:
    """Write arrays as a file of the kind of its suffix; texts in a safetensors become numbers and their names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **{key: np.asarray(value) for key, value in arrays.items()})
    elif path.suffix == ".parquet":
        columns = {key: np.asarray(value) for key, value in arrays.items()}
        parquet.write_table(pa.table({key: pa.array(value.tolist()) for key, value in columns.items()}), path)
    else:
        _write_safetensors(path, arrays)
    return path


def _write_safetensors(path: Path, arrays: dict[str, Any]) -> None:
    tensors, metadata = {}, {}
    for key, value in arrays.items():
        array = np.asarray(value)
        if key == "labels" and array.dtype.kind == "U":
            names, array = np.unique(array, return_inverse=True)
            metadata["class_names"] = json.dumps(names.tolist())
        elif key == "splits" and array.dtype.kind == "U":
            array = np.array([("train", "val", "test").index(split) for split in array.tolist()])
        elif array.dtype.kind == "U":
            metadata[key] = json.dumps(array.tolist())
            continue
        tensors[key] = torch.from_numpy(np.ascontiguousarray(array))
    save_file(tensors, path, metadata)
