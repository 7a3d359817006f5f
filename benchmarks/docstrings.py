"""Make few-shot data of real texts: which part of a library does a docstring document?

python benchmarks/docstrings.py docstrings.npz
metabench run benchmarks/docstrings.yaml

A text is the prose of the docstring of a public function or class of an installed library, without sections, examples
and titles; its class is the subpackage. scikit-learn and SymPy train, NetworkX validates, SciPy tests (all under
3-clause BSD licences). Features are TF-IDF weights of words, fitted to the training texts, and reduced by a truncated
singular value decomposition. The file has splits and names.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

#: The libraries of each split; classes of NetworkX are modules of its subpackage `algorithms`.
LIBRARIES = {"train": ("sklearn", "sympy"), "val": ("networkx",), "test": ("scipy",)}
#: Subpackages that hold no topic.
WITHOUT_TOPIC = {"sklearn.externals", "sklearn.utils", "sympy.utilities", "sympy.parsing", "sympy.printing"}
#: Fewest characters of a text, and fewest texts of a class.
SHORTEST, FEWEST = 100, 20
DIMENSIONS = 128


@dataclass(frozen=True)
class Text:
    """The prose of a docstring.

    Attributes:
        split: the split of its library.
        topic: its class, e.g. "scipy.fft".
        name: the place of the function or class, e.g. "scipy/fft/_basic.py:fft".
        prose: the text.
    """

    split: str
    topic: str
    name: str
    prose: str


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="FILE.npz")
    output = parser.parse_args().output
    texts = of_large_topics([text for split in LIBRARIES for text in texts_of(split)])
    vectors = features(texts)
    np.savez_compressed(
        output,
        vectors=vectors,
        labels=[text.topic for text in texts],
        splits=[text.split for text in texts],
        names=[text.name for text in texts],
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("scikit-learn", "sympy", "networkx",
                                                                                    "scipy"))  # fmt: skip
    for split in LIBRARIES:
        members = [text for text in texts if text.split == split]
        print(f"{split}: {len({text.topic for text in members})} classes, {len(members)} texts")
    print(f"{output}: {vectors.shape[1]} numbers a text ({versions})")


def texts_of(split: str) -> Iterator[Text]:
    """Yield the texts of a split, by their place."""
    for library in LIBRARIES[split]:
        found = importlib.util.find_spec(library)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"{library} is not installed: pip install 'metabench[dev]'")
        root = Path(found.submodule_search_locations[0])
        for path in sorted(root.rglob("*.py")):
            topic = topic_of(path.relative_to(root.parent))
            if topic is not None:
                place = path.relative_to(root.parent).as_posix()
                for name, prose in prose_of(path.read_text(encoding="utf-8"), topic):
                    yield Text(split, topic, f"{place}:{name}", prose)


def topic_of(path: Path) -> str | None:
    """Return the subpackage of a module; None of modules without a topic, e.g. tests."""
    library, *folders = path.with_suffix("").parts
    if library == "networkx":
        folders = folders[1:] if folders[0] == "algorithms" else []
    if len(folders) < 2 or "tests" in folders or folders[0].startswith("_"):
        return None
    topic = f"{library}.{folders[0]}"
    return None if topic in WITHOUT_TOPIC else topic


def prose_of(source: str, topic: str) -> Iterator[tuple[str, str]]:
    """Yield name and prose of the public functions and classes of a module, without the name of their topic."""
    title = re.compile(rf"\b({'|'.join(map(re.escape, [topic, *topic.split('.')]))})\b", re.IGNORECASE)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        # A section begins with a title and a line below it.
        prose = re.split(r"\n\s*\w[\w ]*\n\s*[-=]{3,}", ast.get_docstring(node) or "")[0]
        lines = (line for line in prose.splitlines() if not line.strip().startswith((">>>", "...")))
        prose = title.sub(" ", " ".join(lines)).strip()
        if len(prose) >= SHORTEST:
            yield node.name, prose


def of_large_topics(texts: list[Text]) -> list[Text]:
    """Return different texts, of topics that have enough of them."""
    different = list({text.prose: text for text in reversed(texts)}.values())[::-1]
    named = list({text.name: text for text in different}.values())
    counts: dict[str, int] = {}
    for text in named:
        counts[text.topic] = counts.get(text.topic, 0) + 1
    return [text for text in named if counts[text.topic] >= FEWEST]


def features(texts: list[Text]) -> np.ndarray:
    """Return [n, D] float32 features; nothing is fitted to texts of val and test."""
    train = [text.prose for text in texts if text.split == "train"]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit(train)
    reduced = TruncatedSVD(DIMENSIONS, random_state=0).fit(words.transform(train))
    return reduced.transform(words.transform([text.prose for text in texts])).astype(np.float32)


if __name__ == "__main__":
    main()
