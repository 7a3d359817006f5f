"""Read and write the YAML of a suite as plain values, with the line of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from metabench.errors import SuiteError, shown
from metabench.registry.configs import short

MAX_NODES = 20_000
MAX_DEPTH = 20

#: The keys and list indices that lead to a value.
KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number (YAML 1.2)."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which `_Loader` would read as a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")


def write_suite_text(suite: Mapping[str, Any]) -> str:
    """Return a suite of plain values as YAML, which `Reader` reads unchanged."""
    return yaml.dump(dict(suite), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class Reader:
    """Turns YAML nodes into plain values and records their lines.

    Raises a `SuiteError` for files beyond MAX_DEPTH and MAX_NODES, repeated keys and tags of programming languages.
    """

    def __init__(self, path: Path) -> None:
        self.places: dict[KeyPath, tuple[KeyPath, int]] = {}
        self._path = path
        self._nodes = 0

    def read(self, text: str) -> Any:
        """Return the content as plain values.

        Raises:
            SuiteError: it is not plain YAML.
        """
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            return self._value(loader, node, (), 0) if node is not None else None
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
            raise SuiteError(f"{self._path}{line}: not valid YAML: {shown(error.problem, 120)}") from error
        except yaml.reader.ReaderError as error:
            place = f"{self._path}:{text.count(chr(10), 0, error.position) + 1}"
            problem = f"the character #x{ord(text[error.position]):04x} is not allowed"
            raise SuiteError(f"{place}: not valid YAML: {problem}; write it as an escape in double quotes") from error
        except (yaml.YAMLError, ValueError) as error:
            raise SuiteError(f"{self._path}: not valid YAML: {shown(error, 120)}") from error
        except RecursionError as error:
            raise SuiteError(f"{self._path}: nested too deeply (at most {MAX_DEPTH} levels)") from error

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self._nodes += 1
        line = node.start_mark.line + 1
        self.places.setdefault(path, (path, line))
        # Aliases are expanded here, so both limits also stop aliases that multiply or refer to themselves.
        if depth > MAX_DEPTH:
            raise SuiteError(f"{self._path}:{line}: nested too deeply (at most {MAX_DEPTH} levels)")
        if self._nodes > MAX_NODES:
            raise SuiteError(f"{self._path}:{line}: more than {MAX_NODES} values: too many for a suite")
        if node.tag.removeprefix(_TAG) not in _PLAIN_TAGS:
            raise SuiteError(f"{self._path}:{line}: the tag {shown(node.tag)} is not allowed: use plain values only")
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key_line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise SuiteError(f"{self._path}:{key_line}: keys are words, not lists or mappings")
                key = self._scalar(loader, key_node)
                if not isinstance(key, str):
                    raise SuiteError(f"{self._path}:{key_line}: keys are words, not {short(key_node.value)}")
                if key in mapping:
                    raise SuiteError(f"{self._path}:{key_line}: the key '{shown(key)}' is given twice: remove one")
                self.places[(*path, key)] = ((*path, key), key_line)
                mapping[key] = self._value(loader, value_node, (*path, key), depth + 1)
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        return self._scalar(loader, node)

    def _scalar(self, loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        """Return the value of a scalar; dates stay text."""
        if node.tag == _TAG + "timestamp":
            return node.value
        try:
            return loader.construct_object(node)
        except (LookupError, AttributeError, TypeError, ValueError) as error:  # raised by the YAML constructors
            line = node.start_mark.line + 1
            kind = node.tag.removeprefix(_TAG)
            raise SuiteError(f"{self._path}:{line}: {short(node.value)} is not a valid {shown(kind)}") from error
