"""Histograms as files that other tools read: `.hlog` and `.hgrm` of HdrHistogram."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tvops.engine.telemetry.export import Interval, render_hgrm, render_hlog
from tvops.engine.telemetry.histogram import Counts
from tvops.errors import UsageError
from tvops.whole_files import SHARED, check_place, write_whole


def place_for_hgrm(folder: Path) -> None:
    """Make a folder for `write_hgrm`; raise UsageError where that is not possible."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror or error}") from None
    check_place(folder / "x.hgrm")


def write_hgrm(folder: Path, histograms: Mapping[str, Counts]) -> None:
    """Write a percentile distribution of each histogram, in ms, as ``NAME.hgrm``; raise UsageError as files do."""
    place_for_hgrm(folder)
    for name, counts in histograms.items():
        write_whole(folder / f"{name}.hgrm", "".join(render_hgrm(counts)).encode(), SHARED)


def write_hlog(path: Path, start: int, intervals: Iterable[Interval]) -> None:
    """Write a histogram log that begins at ``start`` (ns since 1970); raise UsageError as files do."""
    write_whole(path, "".join(render_hlog(start, intervals)).encode(), SHARED)
