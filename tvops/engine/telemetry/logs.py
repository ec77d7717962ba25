"""The one logger set-up: lines on stderr, for people or as JSON.

For people: `time level process name: message`, UTC. As JSON: one object a line with `time` (ISO 8601, UTC),
`level`, `process`, `logger`, `message`, and for exceptions `error` (its type), `reason` and `traceback`.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Literal

import msgspec

LogFormat = Literal["auto", "console", "json"]


class _PresentStderr:
    """Stderr as it is when a line is written: a live status line on the terminal takes its place for a while."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            kind, error, _ = record.exc_info
            fields |= {
                "error": kind.__name__,
                "reason": str(error),
                "traceback": "".join(traceback.format_exception(*record.exc_info)),
            }
        return _encoded(fields)


def chosen_format(wanted: LogFormat) -> Literal["console", "json"]:
    """Say what `auto` is here: JSON where a collector reads stderr, that is a pipe or a socket and no terminal."""
    if wanted != "auto":
        return wanted
    try:
        mode = os.fstat(2).st_mode
        collected = not os.isatty(0) and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
    except OSError:
        collected = False
    return "json" if collected else "console"


def set_up_logging(level: str, name: str, form: LogFormat = "console") -> None:
    """Log to stderr from `level` up; ``name`` says which process a line comes from."""
    handler = logging.StreamHandler(_PresentStderr())
    handler.setFormatter(_JsonFormatter(name) if chosen_format(form) == "json" else _console(name))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("uvicorn", "picows", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _console(name: str) -> logging.Formatter:
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)s {name} %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    return formatter


def _encoded(fields: dict[str, str]) -> str:
    try:
        return msgspec.json.encode(fields).decode()
    except UnicodeEncodeError:  # a path with bytes that are no text
        clean = {key: value.encode(errors="backslashreplace").decode() for key, value in fields.items()}
        return msgspec.json.encode(clean).decode()
