"""YAML files of which every key knows its line, for messages such as ``prod.yaml:31: …``.

Stricter than YAML: a key stands once and is text; nothing is aliased, tagged or nested without end. A value is
text without control characters, a finite number, a boolean, null, a list or a mapping; what YAML would take for a
date stays text.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tvops.errors import UsageError

MAX_DEPTH = 16

_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + name for name in ("null", "bool", "int", "float", "str")}
_TEXT = {_TAG + name for name in ("timestamp", "value")}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Keys = tuple[str | int, ...]


class Located(msgspec.Struct, frozen=True):
    """The content of a YAML file, and the lines on which its keys stand."""

    path: Path
    value: Any
    lines: dict[Keys, int]

    def line(self, *keys: str | int) -> int:
        """Give the line of a key or list element by its path; where it is missing, of the nearest one above."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    def place(self, *keys: str | int) -> str:
        """Give ``FILE:LINE`` of a key, for messages."""
        return f"{self.path}:{self.line(*keys)}"


def load_yaml(path: Path, limit: int = 1 << 20) -> Located:
    """Read a YAML file of at most ``limit`` bytes; an empty one has the value None.

    Raises:
        UsageError: ``FILE:LINE: message``, or ``FILE: message`` where the file cannot be read.
    """
    return parse_yaml(_read(path, limit), path)


def parse_yaml(text: str, path: Path) -> Located:
    """Read YAML text that ``path`` stands for in messages; raise UsageError as `load_yaml` does."""
    lines: dict[Keys, int] = {}
    try:
        _check_structure(text, path)
        loader = _Loader(text)
        root = loader.get_single_node()
        value = None if root is None else _Reader(path, loader, lines).value(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "is not YAML"
        raise UsageError(f"{path}:{mark.line + 1 if mark else 1}: {problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: is not YAML: {str(error).splitlines()[0]}") from None
    return Located(path, value, lines)


def _check_structure(text: str, path: Path) -> None:
    """Refuse what must not even be composed: the composer recurses on the C stack, and an alias multiplies."""
    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise UsageError(f"{path}:{line}: nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{path}:{line}: *{event.anchor} is an alias; write the value out")


def _read(path: Path, limit: int) -> str:
    try:
        if not path.is_file():
            raise UsageError(f"{path}: {'is not a regular file' if path.exists() else 'there is no such file'}")
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise UsageError(f"{path}: is larger than {limit} bytes")
        return content.decode()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: is not UTF-8 text") from None


class _Reader:
    """Turns the nodes of one document into plain data and notes their lines."""

    def __init__(self, path: Path, loader: Any, lines: dict[Keys, int]) -> None:
        self.path = path
        self.loader = loader
        self.lines = lines

    def value(self, node: Any, keys: Keys) -> Any:
        self.lines.setdefault(keys, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, keys)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*keys, i)) for i, child in enumerate(node.value)]
        return self.scalar(node)

    def mapping(self, node: Any, keys: Keys) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self.error(key_node, f"the key {_shown(key_node)} is not text; put it in quotes")
            below = (*keys, key)
            if key in result:
                raise self.error(key_node, f"{_name(below)} stands twice, first on line {self.lines[below]}")
            self.lines[below] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, below)
        return result

    def scalar(self, node: Any) -> Any:
        if any(ord(letter) < 32 and letter not in "\n\t" for letter in node.value):
            raise self.error(node, f"{_shown(node)} has a control character")
        if node.tag in _TEXT:
            return node.value
        if node.tag not in _PLAIN:
            raise self.error(
                node, f"{_shown(node)} has the tag {node.tag.replace(_TAG, '!!')}, which is unknown here"
            )
        try:
            value = self.loader.construct_object(node)
        except (ValueError, KeyError):  # the latter: !!bool of another word
            raise self.error(node, f"{_shown(node)} is not a value that can be read") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(node, f"{_shown(node)} must be a finite number")
        return value

    def error(self, node: Any, message: str) -> UsageError:
        return UsageError(f"{self.path}:{node.start_mark.line + 1}: {message}")


def _name(keys: Keys) -> str:
    return ".".join(map(str, keys)) or "the file"


def _shown(node: Any) -> str:
    return repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "that is a list or mapping"
