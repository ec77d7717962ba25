"""The histograms of a result by name, for other tools: `.hgrm` files and one `.hlog` with a tag for each."""

from __future__ import annotations

from pathlib import Path

from tvops.bench.result import Result
from tvops.engine.telemetry.export import Interval
from tvops.engine.telemetry.histogram import Counts
from tvops.latency_files import write_hgrm, write_hlog


def histograms_of(result: Result) -> dict[str, Counts]:
    """Give response and service time of every operation, as ``rest_orders.new.response``."""
    return {
        f"{operation.key}.{kind}": histogram.unpack()
        for operation in result.operations
        for kind, histogram in (("response", operation.response), ("service", operation.service))
    }


def write_histograms(result: Result, hgrm: Path | None, hlog: Path | None) -> None:
    """Write what is wanted; a result holds one interval, its whole measured time.

    Raises:
        UsageError: a file cannot be written.
    """
    found = histograms_of(result)
    if hgrm is not None:
        write_hgrm(hgrm, found)
    if hlog is not None:
        start = result.started + int(result.warm_up * 1e9)
        length = int(result.seconds * 1e9)
        write_hlog(hlog, start, (Interval(start, length, counts, tag) for tag, counts in found.items()))
