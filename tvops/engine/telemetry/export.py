"""Histograms as files of HdrHistogram: `.hlog` (intervals, one a line) and `.hgrm` (a percentile distribution).

Our buckets are those of a HdrHistogram for values from 1 ns to an hour at two significant digits: nothing is lost
on the way. Readers: HistogramLogAnalyzer, hdr-plot, http://hdrhistogram.github.io/HdrHistogram/plotFiles.html
and the libraries in a dozen languages. Formats: `HistogramLogWriter`, `HistogramLogProcessor` and
`AbstractHistogram.encodeIntoCompressedByteBuffer` (version 2) of https://github.com/HdrHistogram/HdrHistogram.
"""

from __future__ import annotations

import base64
import math
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from tvops.engine.telemetry.histogram import (
    BUCKETS,
    HALF,
    HIGHEST,
    HIGHEST_OF,
    MIDDLE_OF,
    Counts,
    percentiles,
    sum_of,
)

DIGITS: Final = 2  # significant ones: 128 buckets for each power of two

_COOKIE: Final = 0x1C849313  # version 2, ZigZag LEB128
_COMPRESSED_COOKIE: Final = 0x1C849314
_HEADER: Final = struct.Struct(">iiiiqqd")  # cookie, length, index offset, digits, lowest, highest, ratio
_TICKS: Final = 5  # lines of a percentile distribution for each halving of the distance to 100 %
_FINEST: Final = 100 - 1e-10  # %: closer to 100, twelve digits show no difference, and steps come to nothing
_BAD_IN_TAG: Final = frozenset(", \t\r\n")


class Interval(NamedTuple):
    """The latencies of a while."""

    start: int  # ns since 1970
    length: int  # ns
    counts: Counts
    tag: str = ""  # the stage; no comma or blank in it


def encode(counts: Counts) -> str:
    """Give counts in the compressed encoding of HdrHistogram, version 2, as base64.

    Raises:
        ValueError: a count is below 0, as in the difference of two processes.
    """
    if (counts < 0).any():
        raise ValueError("counts below 0 are no histogram")
    body = bytearray()
    last = int(np.flatnonzero(counts)[-1]) if counts.any() else -1
    zeros = 0
    for count in counts[: last + 1].tolist():
        if not count:
            zeros += 1
            continue
        if zeros:
            _append(body, -zeros)
            zeros = 0
        _append(body, count)
    packed = _HEADER.pack(_COOKIE, len(body), 0, DIGITS, 1, HIGHEST, 1.0) + body
    compressed = zlib.compress(packed)
    return base64.b64encode(struct.pack(">ii", _COMPRESSED_COOKIE, len(compressed)) + compressed).decode()


def render_hlog(start: int, intervals: Iterable[Interval]) -> Iterator[str]:
    """Give the lines of a histogram log.

    Args:
        start: of the recording, ns since 1970.
        intervals: in the order of time; values are written in ns, their maximum in ms as is the custom.

    Raises:
        ValueError: a tag has a comma or a blank in it; counts are below 0.
    """
    day = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start / 1e9))
    yield "#[Histogram log format version 1.3]\n"
    yield f"#[StartTime: {start / 1e9:.3f} (seconds since epoch), {day}]\n"
    yield f"#[BaseTime: {start / 1e9:.3f} (seconds since epoch)]\n"
    yield '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    for interval in intervals:
        if not _BAD_IN_TAG.isdisjoint(interval.tag):
            raise ValueError(f"tag {interval.tag!r}: has a comma or a blank in it")
        tag = f"Tag={interval.tag}," if interval.tag else ""
        begin, length = (interval.start - start) / 1e9, interval.length / 1e9
        longest = percentiles(interval.counts, [100])[0] / 1e6
        yield f"{tag}{begin:.3f},{length:.3f},{longest:.3f},{encode(interval.counts)}\n"


def render_hgrm(counts: Counts, unit: int = 1_000_000) -> Iterator[str]:
    """Give the lines of a percentile distribution, with values in ``unit`` ns: ms by default."""
    yield f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n"
    total = int(counts.sum())
    if total:
        yield from _distribution(counts, total, unit)
    middles = MIDDLE_OF / unit
    mean = sum_of(counts) / unit / total if total else 0.0
    deviation = math.sqrt(float(counts @ (middles - mean) ** 2) / total) if total else 0.0
    longest = percentiles(counts, [100])[0] / unit
    yield f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]\n"
    yield f"#[Max     = {longest:12.3f}, Total count    = {total:12d}]\n"
    yield f"#[Buckets = {BUCKETS // HALF - 1:12d}, SubBuckets     = {2 * HALF:12d}]\n"


def _distribution(counts: Counts, total: int, unit: int) -> Iterator[str]:
    cumulated, level = np.cumsum(counts), 0.0
    for bucket in np.flatnonzero(counts).tolist():
        value, count = HIGHEST_OF[bucket] / unit, int(cumulated[bucket])
        while level < _FINEST and 100 * count / total >= level:
            yield f"{value:12.3f} {level / 100:2.12f} {count:10d} {1 / (1 - level / 100):14.2f}\n"
            if count == total:
                break
            halvings = math.floor(math.log2(100 / (100 - level))) + 1
            level += 100 / (_TICKS * 2**halvings)
    yield f"{HIGHEST_OF[np.flatnonzero(counts)[-1]] / unit:12.3f} {1:2.12f} {total:10d}\n"


def _append(body: bytearray, number: int) -> None:
    """Append a number as ZigZag LEB128: at most nine bytes, the ninth of which has eight bits of it."""
    left = (number << 1) ^ (number >> 63)
    for _ in range(8):
        if left < 0x80:
            break
        body.append(left & 0x7F | 0x80)
        left >>= 7
    body.append(left)
