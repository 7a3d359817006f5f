"""Pack the code and data of a page: Bokeh's library alone has 1.3 MB, and a third of that when compressed."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any


def packed(content: Mapping[str, Any]) -> str:
    """Return plain data as compressed JSON in base64, which `page.js` unpacks; equal data give equal texts."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "surrogatepass"), 9, mtime=0)).decode()
