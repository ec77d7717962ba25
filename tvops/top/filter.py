"""The filter of a table: a regular expression that cannot hold the screen up, whatever it is.

Python's `re` tries every way in which a pattern may match and cannot be interrupted meanwhile. So the ways of a
pattern are counted beforehand, lines are cut, and a pass over the rows has a budget.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterable
from functools import lru_cache
from math import prod
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

LINE: Final = 200
"""Letters of a row that are looked at."""

MOST_WAYS: Final = 200_000
"""Ways from one letter of a line; two open repeats (`a.*b.*c`) have 40,000."""

PASS_SECONDS: Final = 0.2
"""CPU time that one pass over the rows may take."""

REPEATS: Final = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)


class Filter:
    """A regular expression without case, inverse with a leading `!`; plain text where it cannot be one.

    Attributes:
        wrong: why it is taken as plain text; empty while it is not.
    """

    def __init__(self, pattern: str, seconds: float = PASS_SECONDS) -> None:
        """Take ``pattern``; a pass over the rows may take ``seconds`` of CPU time."""
        self._inverse = pattern.startswith("!")
        self._body = pattern[self._inverse :]
        self._seconds = seconds
        self.wrong = _wrong(self._body)
        self._found = self._plain() if self.wrong else _compiled(self._body)

    def keep(self, texts: Iterable[str]) -> list[bool]:
        """Tell of each row whether it is shown; a pattern that takes too long is plain text from here on."""
        lines = [text[:LINE] for text in texts]
        if not self._body:
            return [True] * len(lines)
        kept: list[bool] = []
        begin = time.thread_time()
        for line in lines:
            if not self.wrong and time.thread_time() - begin > self._seconds:
                self.wrong, self._found = "takes too long", self._plain()
                return self.keep(lines)
            kept.append((self._found.search(line) is None) == self._inverse)
        return kept

    def _plain(self) -> re.Pattern[str]:
        return re.compile(re.escape(self._body), re.IGNORECASE)


@lru_cache(maxsize=16)
def filter_of(pattern: str) -> Filter:
    """Give the filter of a pattern: the same for the same one, so that it stays known which takes too long."""
    return Filter(pattern)


def _compiled(body: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of sets in sets, which do what they did
        return re.compile(body, re.IGNORECASE)


def _wrong(body: str) -> str:
    try:
        _compiled(body)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression ({error})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ways = _ways(_parser.parse(body, re.IGNORECASE))
    return (
        "can match in too many ways (one repeat within another, or too many of them)" if ways > MOST_WAYS else ""
    )


def _ways(items: Iterable[tuple[Any, Any]]) -> int:
    """Give a bound of the ways in which a parsed pattern may match from one letter on, `MOST_WAYS` + 1 at most."""
    return min(MOST_WAYS + 1, prod(_ways_of(op, value) for op, value in items))


def _ways_of(op: Any, value: Any) -> int:
    if op in REPEATS:
        least, most, inner = value
        ways = _ways(inner)
        return sum(ways**times for times in range(min(least, LINE), min(most, LINE) + 1))
    if op is ops.BRANCH:
        return sum(_ways(each) for each in value[1])
    if op is ops.GROUPREF_EXISTS:
        return sum(_ways(each) for each in value[1:] if each is not None)
    if op in (ops.SUBPATTERN, ops.ASSERT, ops.ASSERT_NOT):
        return _ways(value[-1])
    return _ways(value) if op is ops.ATOMIC_GROUP else 1
