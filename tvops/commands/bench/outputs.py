"""Where a result goes besides the terminal: options that the commands share, and what they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import typer

from tvops.terminal import say

if TYPE_CHECKING:
    from tvops.bench.result import Result

SAVE = typer.Option("", metavar="NAME", help="Keep the result under this name, or in this file.")
HTML = typer.Option(None, metavar="FILE", help="Write a report that opens in any browser.")
HGRM = typer.Option(None, metavar="DIR", help="Write percentile distributions (HdrHistogram), a file each.")
HLOG = typer.Option(
    None, metavar="FILE", help="Write a histogram log (HdrHistogram), tagged by operation; a new file."
)


T = TypeVar("T")


def show(found: T, text_of: Callable[[T], str], as_json: bool) -> None:
    """Print what was found for people, or as JSON in plain ASCII: neither can steer a terminal."""
    if as_json:
        from tvops.json_text import json_line

        typer.echo(json_line(found))
    else:
        say(text_of(found))


class Outputs(NamedTuple):
    """The files that are wanted of a result."""

    save: str = ""
    html: Path | None = None
    hgrm: Path | None = None
    hlog: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be written before there is anything to write; raise UsageError."""
        from tvops.bench.result import place_to_save
        from tvops.latency_files import check_hlog, place_for_hgrm
        from tvops.whole_files import check_place

        if self.save:
            place_to_save(self.save)
        if self.hgrm is not None:
            place_for_hgrm(self.hgrm)
        if self.hlog is not None:
            check_hlog(self.hlog)
        if self.html is not None:
            check_place(self.html)

    def write(self, result: Result) -> None:
        """Write them all; raise UsageError where one cannot be."""
        from tvops.bench.histograms import write_histograms
        from tvops.bench.page import write_page
        from tvops.bench.report import run_page
        from tvops.bench.result import save_result

        if self.save:
            say(f"saved: {save_result(result, self.save)}", err=True)
        if self.html is not None:
            write_page(self.html, run_page(result))
        write_histograms(result, self.hgrm, self.hlog)
