"""Times of records as RFC 3339 strings."""

from __future__ import annotations

import time

_NANOSECONDS = 1_000_000_000
_last_second = -1
_last_text = ""


def format_time(nanoseconds: int) -> str:
    """Write ``nanoseconds`` since the epoch as RFC 3339 in UTC with microseconds."""
    global _last_second, _last_text
    second, rest = divmod(nanoseconds, _NANOSECONDS)
    if second != _last_second:
        _last_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _last_second = second
    return f"{_last_text}.{rest // 1000:06d}Z"
