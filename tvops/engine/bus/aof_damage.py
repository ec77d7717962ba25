"""What a power cut, or a kill, left at the end of a server's append-only file."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from pathlib import Path

_DAMAGED = re.compile(r"Bad file format reading the append only file (appendonly\.aof\.\d+\.incr\.aof)")
_GOOD_UP_TO = re.compile(rb"ok_up_to=(\d+)")
_MOST_CUT_BYTES = 1 << 20
_TRUNCATED = re.compile(r"short read while loading|Truncating the AOF|loaded anyway", re.IGNORECASE)

logger = logging.getLogger(__name__)


def cut_tail(name: str, folder: Path, said: str, program: str) -> bool:
    """Cut off what is behind the last good command; tell whether that was possible.

    Only where no further command follows: damage in the middle is for a person to look at. What is cut off
    stays beside the file. The server's binary is also its own checking program, under a name that Redis and
    Valkey both know.

    Args:
        name: of the server, for the log.
        folder: of the server, which does not run.
        said: what it said when it refused to start, which names the file.
        program: its binary.
    """
    damaged = _DAMAGED.search(said)
    if damaged is None:
        return False
    path = folder / "appendonlydir" / damaged[1]
    try:
        check = subprocess.run(
            ["redis-check-aof", str(path)],  # noqa: S607 - the name only; the program is `executable`
            executable=program, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        good = _GOOD_UP_TO.search(check.stdout)
        if good is None:
            return False
        with path.open("rb") as file:
            file.seek(int(good[1]))
            rest = file.read(_MOST_CUT_BYTES + 1)
        if not 0 < len(rest) <= _MOST_CUT_BYTES or b"\r\nXADD\r\n" in rest:
            return False
        path.with_name(f"{path.name}.cut").write_bytes(rest)
        os.truncate(path, int(good[1]))
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.error("%s: %s is damaged and cannot be repaired: %s", name, path, error)
        return False
    logger.warning("%s: cut %d damaged bytes off the end of %s, kept in .cut", name, len(rest), path)
    return True


def tell_of_cut(name: str, said: str) -> None:
    """Log what the server itself cut off while it started, by what it ``said``."""
    for line in said.splitlines():
        if _TRUNCATED.search(line):
            logger.warning("%s: what was being written when it died is cut off: %s", name, line)
