"""Latencies of running stacks, or of a recording, as files of HdrHistogram: what came between two documents."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np

from tvops.engine.telemetry.document import Telemetry
from tvops.engine.telemetry.export import Interval
from tvops.engine.telemetry.histogram import Counts, empty
from tvops.errors import UsageError
from tvops.latency_files import check_hlog, check_name, place_for_hgrm, write_hgrm, write_hlog
from tvops.telemetry_client import Reading, TelemetryClient
from tvops.top.addresses import Stack

_ENOUGH: Final = 0.9
"""Share of an interval after which the next document ends it: they do not come to the millisecond."""

MOST_STAGES: Final = 4096
"""That are summed up, 36 kB each: as of sixteen full documents. A made-up recording may have new ones in each."""

_NO_TAG: Final = re.compile(r"[^A-Za-z0-9._:-]")
"""What a stack's name may have and a tag may not: the comma of `trade-1:8000,8001`, what a recording says."""


def live_readings(stacks: tuple[Stack, ...], api_key: str, count: int, seconds: float) -> Iterator[Reading]:
    """Poll every port at the begin, and after each of ``count`` times ``seconds``."""
    with asyncio.Runner() as runner:
        client = TelemetryClient([url for stack in stacks for url in stack.urls], api_key)
        begun = time.monotonic()
        try:
            for number in range(count + 1):
                runner.run(asyncio.sleep(max(0.0, begun + number * seconds - time.monotonic())))
                yield from runner.run(client.poll())
        finally:
            runner.run(client.close())


class Intervals:
    """Makes intervals of readings: what every stage recorded since the document before."""

    def __init__(self, stacks: tuple[Stack, ...], seconds: float) -> None:
        """Begin.

        Args:
            stacks: that are read; a tag has the name of its stack in it where there are several.
            seconds: that an interval is long, or longer where documents are rarer.
        """
        self._names = {url: _prefix(stack) if len(stacks) > 1 else "" for stack in stacks for url in stack.urls}
        self._length = int(seconds * _ENOUGH * 1e9)
        self._before: dict[str, Telemetry] = {}
        self.begin = 0
        """When the first document was made, ns since 1970."""

    def take(self, reading: Reading) -> Iterator[Interval]:
        """Give the intervals that end with a reading; nothing where it holds no telemetry.

        Raises:
            UsageError: a tag would have a name that is none.
        """
        document = reading.telemetry
        if document is None or reading.url not in self._names:
            return
        before = self._before.get(reading.url)
        if before is None:
            self.begin = min(self.begin or document.time, document.time)
            self._before[reading.url] = document
            return
        same = (before.pid, before.started) == (document.pid, document.started)
        start = max(before.time if same else document.started, self.begin)
        if document.time - start < (self._length if same else 1):
            return
        self._before[reading.url] = document
        for name, stage in document.stages.items():
            earlier = before.stages.get(name) if same else None
            counts = stage.histogram.unpack() - (earlier.histogram.unpack() if earlier else empty())
            # processes count on while a document is put together, so that one may lack what the one before had
            tag = check_name(f"{self._names[reading.url]}{document.process}.{name}")
            yield Interval(start, document.time - start, np.maximum(counts, 0), tag)


def _prefix(stack: Stack) -> str:
    return f"{_NO_TAG.sub('+', stack.name)}."


def check_exports(hgrm: Path | None, hlog: Path | None) -> None:
    """Refuse what cannot be written, and a log that exists; raise UsageError."""
    if hgrm is not None:
        place_for_hgrm(hgrm)
    if hlog is not None:
        check_hlog(hlog)


def export(
    readings: Iterable[Reading],
    stacks: tuple[Stack, ...],
    seconds: float,
    hgrm: Path | None,
    hlog: Path | None,
    write_log: Callable[[Path, int, Iterable[Interval]], None] = write_hlog,
) -> bool:
    """Write the files that are wanted. Tell whether there was anything.

    Distributions are written also when it is interrupted, of what there is then.

    Args:
        readings: in the order of time.
        stacks: that they are of.
        seconds: of an interval.
        hgrm: folder for a distribution of each stage over the whole time.
        hlog: file for a line for each interval and stage.
        write_log: how that is written: `write_hlog` of a recording, `follow_hlog` of what is measured only once.

    Raises:
        UsageError: a file cannot be written, or would have a name that is none; there are too many stages.
    """
    maker, totals = Intervals(stacks, seconds), dict[str, Counts]()

    def intervals() -> Iterator[Interval]:
        for reading in readings:
            for interval in maker.take(reading):
                if interval.tag not in totals and len(totals) == MOST_STAGES:
                    raise UsageError(f"there are more than {MOST_STAGES} stages: watch fewer stacks at once")
                totals[interval.tag] = totals.get(interval.tag, 0) + interval.counts
                yield interval

    found = intervals()
    try:
        if hlog is None:
            deque(found, maxlen=0)
        elif (first := next(found, None)) is not None:
            write_log(hlog, maker.begin, chain([first], found))
    finally:
        if hgrm is not None and totals:
            write_hgrm(hgrm, totals)
    return bool(totals)
