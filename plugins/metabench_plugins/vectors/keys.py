"""The names of arrays, tensors or columns in a file of vectors."""

from __future__ import annotations

from pydantic import Field

from metabench import api

#: The key of each optional part where the parameter is None, if the file has it.
_USUAL = {"class_names": "class_names", "splits": "splits", "names": "names"}


class KeysConfig(api.Config):
    """Parameters that name the arrays of a ``.npz``, tensors of a ``.safetensors``, or columns of a ``.parquet``.

    Attributes:
        vectors: [n, D] numbers.
        labels: [n] texts or whole numbers, the class of each vector.
        class_names: [classes] texts, the name of the class 0, 1, …; of a ``.safetensors``, a JSON list in its metadata.
            None takes ``class_names`` if the file has it; else a number is its name.
        splits: [n] texts ``train``, ``val`` and ``test``, or 0, 1 and 2. None takes ``splits`` if the file has it.
        names: [n] texts or whole numbers, another name for each vector. None takes ``names`` if the file has it; else
            a vector is named by its row.
    """

    vectors: str = Field(default="vectors", min_length=1)
    labels: str = Field(default="labels", min_length=1)
    class_names: str | None = Field(default=None, min_length=1)
    splits: str | None = Field(default=None, min_length=1)
    names: str | None = Field(default=None, min_length=1)

    def key(self, part: str) -> str:
        """Return the key of a part: ``vectors``, ``labels``, ``class_names``, ``splits`` or ``names``."""
        return getattr(self, part) or _USUAL[part]

    def required(self, part: str) -> bool:
        """Return whether every file must have a part."""
        return getattr(self, part) is not None
