"""A folder that lives as long as the object that names it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


class TemporaryFolder:
    """A folder that is deleted with this object, at the latest when the process ends.

    `tempfile.TemporaryDirectory` warns where it is not closed; results in a notebook never are.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="metabench-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
