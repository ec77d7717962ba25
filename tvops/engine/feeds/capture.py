"""Captures: files of recorded frames, one `<receive time in ns> <frame>` a line; gzip, zstd or plain text."""

from __future__ import annotations

import gzip
import heapq
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import zstandard

from tvops.engine.feeds.binance import Frame
from tvops.errors import UsageError

MAX_LINE = 2 << 20
"""Longest line in bytes; a snapshot of 5,000 levels a side has about 350 kB."""

_BLOCK = 1 << 16
_PEEK_BYTES = 4 << 20
_MAX_WINDOW = 1 << 27  # memory that a zstd frame may ask for
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_LINE = re.compile(rb"([0-9]{1,19}) +(\{.*)", re.DOTALL)
_STREAM = re.compile(rb'"stream"\s*:\s*"([0-9A-Za-z_]{1,40})@')
_DAMAGE = (OSError, EOFError, zlib.error, zstandard.ZstdError)

logger = logging.getLogger(__name__)


class Captures:
    """One or more captures, merged by time, streamed: memory does not grow with their size."""

    def __init__(self, paths: list[Path]) -> None:
        """Check that all ``paths`` are captures.

        Raises:
            UsageError: one cannot be read or is none, or two carry the same symbol.
        """
        self.paths = paths
        self.counts: Counter[str] = Counter()
        """`bytes` read, `garbage` lines (no time and frame, or too long), `damaged` files (cut off)."""
        self.symbols: dict[str, Path] = {}
        for path in paths:
            for symbol in sorted(self._peek(path)):
                if symbol in self.symbols:
                    raise UsageError(
                        f"feed: {self.symbols[symbol]} and {path} both carry {symbol}; replay one of them"
                    )
                self.symbols[symbol] = path

    def frames(self) -> Iterator[Frame]:
        """Give the frames of one pass; what is damaged is logged and counted, never raised."""
        passes = [self._frames(path) for path in self.paths]
        if len(passes) == 1:
            return passes[0]
        return heapq.merge(*passes, key=lambda frame: frame[0])

    def _peek(self, path: Path) -> set[str]:
        """Give the symbols in the first part of a capture."""
        symbols, sound, trouble = set(), 0, ""
        try:
            for line in self._lines(path, most=_PEEK_BYTES):
                sound += _LINE.match(line) is not None
                found = _STREAM.search(line, 0, 200)
                if found:
                    symbols.add(found[1].decode().upper())
        except _DAMAGE as error:
            trouble = _plain(error)
        self.counts.clear()
        if trouble and not sound:
            raise UsageError(f"feed: cannot read the capture {path}: {trouble}")
        if not symbols:
            raise UsageError(
                f"feed: {path} is no capture of Binance combined streams (lines of '<time in ns> <frame>')"
            )
        return symbols

    def _frames(self, path: Path) -> Iterator[Frame]:
        try:
            for line in self._lines(path):
                found = _LINE.match(line)
                if found:
                    yield int(found[1]), found[2]
                else:
                    self.counts["garbage"] += 1
        except _DAMAGE as error:
            self.counts["damaged"] += 1
            if self.counts["damaged"] == 1:
                logger.warning("replay: %s ends early: %s", path, _plain(error))

    def _lines(self, path: Path, most: int | None = None) -> Iterator[bytes]:
        """Give the lines of the first ``most`` bytes (by default all), without those that are too long."""
        with open_capture(path) as source:
            rest, skipping, left = b"", False, most
            while (left is None or left > 0) and (block := source.read(_BLOCK)):
                self.counts["bytes"] += len(block)
                left = left if left is None else left - len(block)
                first, *lines = block.split(b"\n")
                rest += first
                if len(rest) > MAX_LINE:
                    rest, skipping = b"", True
                if not lines:
                    continue
                if skipping:
                    self.counts["garbage"] += 1
                else:
                    yield rest
                yield from lines[:-1]
                rest, skipping = lines[-1], False
            if rest and not skipping:
                yield rest


def open_capture(path: Path) -> IO[bytes]:
    """Open a capture for reading, by what is in it and not by its name."""
    if not path.is_file():
        raise OSError("there is no such file" if not path.exists() else "it is not a file")
    with path.open("rb") as source:
        head = source.read(4)
    if head.startswith(_GZIP):
        return cast(IO[bytes], gzip.open(path, "rb"))
    if head == _ZSTD:
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        return reader.stream_reader(path.open("rb"), read_across_frames=True, closefd=True)
    return path.open("rb")


def _plain(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())


def find_captures(text: str) -> Captures:
    """Give the captures of ``text``: paths, comma-separated; a directory stands for the captures in it.

    Raises:
        UsageError: names the path that is missing or is no capture.
    """
    paths: list[Path] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        path = Path(part).expanduser()
        if not path.is_dir():
            paths.append(path)
            continue
        inside = [entry for entry in sorted(path.iterdir()) if entry.is_file() and _is_capture(entry)]
        if not inside:
            raise UsageError(f"feed: there is no capture in the directory {path}")
        paths += inside
    if not paths:
        raise UsageError("feed: replay needs a path: --feed replay:PATH")
    return Captures(paths)


def _is_capture(path: Path) -> bool:
    try:
        Captures([path])
    except UsageError as error:
        logger.info("passing over: %s", error)
        return False
    return True
