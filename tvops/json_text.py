"""JSON for scripts in plain ASCII: no terminal heeds it when it lands on one, whatever its encoding is."""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec

_NOT_PLAIN: Final = re.compile(r"[^\n -~]+")


def json_line(document: object) -> bytes:
    """Give a document in one line, without an end of line."""
    return _plain(msgspec.json.encode(document))


def json_indented(document: object) -> bytes:
    """Give a document in several lines, for people who look at it too."""
    return _plain(msgspec.json.format(msgspec.json.encode(document), indent=2))


def _plain(encoded: bytes) -> bytes:
    r"""Write what is no ASCII, and DEL, as \uXXXX; JSON itself asks for that only below a blank.

    U+009B begins a command to a terminal, as ESC does; to one that does not know UTF-8 the byte 9B does, which
    many letters have in UTF-8.
    """
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return _NOT_PLAIN.sub(lambda letters: json.dumps(letters[0])[1:-1], encoded.decode()).encode()
