"""Histograms as files that other tools read: `.hlog` and `.hgrm` of HdrHistogram."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tvops.engine.telemetry.export import Interval, render_hgrm, render_hlog
from tvops.engine.telemetry.histogram import Counts
from tvops.errors import UsageError
from tvops.whole_files import (
    SHARED,
    append_whole,
    check_place,
    open_in_place,
    refusal,
    stays_in_place,
    target_of,
    write_whole,
)

_NAME: Final = re.compile(r"[A-Za-z0-9_:+][A-Za-z0-9._:+-]{0,199}")
_SHOWN: Final = 60


def check_name(name: str) -> str:
    """Give the name of a histogram back, fit for a file and for a tag of a log; raise UsageError where it is not.

    Names come from documents, recordings and results, which may be anybody's: none may leave its folder.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:_SHOWN]!r}: is no name of a histogram (letters, digits and ._:+-, at most 200 of them); "
            "the file or stack that it comes from was not made by tvops"
        )
    return name


def place_for_hgrm(folder: Path) -> None:
    """Make a folder for `write_hgrm`; raise UsageError where that is not possible."""
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{folder}: is no folder") from None
    except OSError as error:
        raise refusal(folder, error) from None
    check_place(folder / "x.hgrm")


def check_hlog(path: Path) -> None:
    """Raise UsageError where no histogram log can be written, or where a file is: a log is never replaced."""
    check_place(path)
    if path.is_file() and not stays_in_place(path):
        raise UsageError(f"{path}: exists already; name another file")


def write_hgrm(folder: Path, histograms: Mapping[str, Counts]) -> None:
    """Write a percentile distribution of each histogram, in ms, as ``NAME.hgrm``, each whole or not at all.

    Raises:
        UsageError: a name is none for a file, or a file cannot be written.
    """
    for name in histograms:
        check_name(name)
    place_for_hgrm(folder)
    for name, counts in histograms.items():
        write_whole(folder / f"{name}.hgrm", "".join(render_hgrm(counts)).encode(), SHARED)


def write_hlog(path: Path, start: int, intervals: Iterable[Interval]) -> None:
    """Write a histogram log that begins at ``start`` (ns since 1970), whole or not at all.

    Raises:
        UsageError: a tag is none, or the file cannot be written.
    """
    write_whole(path, _hlog_lines(start, intervals), SHARED)


def follow_hlog(path: Path, start: int, intervals: Iterable[Interval]) -> None:
    """Write a new histogram log line by line: whoever follows the file sees each interval as it ends.

    What does not fit on a full disk is left out, and intervals that are written stay; a log without any does not.

    Raises:
        UsageError: a tag is none, or the file cannot be written.
    """
    kept = False
    try:
        device, target = stays_in_place(path), target_of(path)
        with open_in_place(path) if device else target.open("xb", buffering=0) as file:
            try:
                for line in _hlog_lines(start, intervals):
                    append_whole(file, line)
                    kept = line.startswith(b"Tag=")
            finally:
                if not device and not kept:
                    target.unlink()
    except OSError as error:
        raise refusal(path, error) from None


def _hlog_lines(start: int, intervals: Iterable[Interval]) -> Iterator[bytes]:
    """Give the lines of a histogram log; raise UsageError where a tag is none."""
    named = (interval._replace(tag=check_name(interval.tag)) for interval in intervals)
    return (line.encode() for line in render_hlog(start, named))
