"""`tvops bench capacity`: what this host carries inside the targets."""

from __future__ import annotations

from pathlib import Path

import typer

from tvops.commands.bench.outputs import show
from tvops.terminal import say

app = typer.Typer()

KINDS = ("orders", "ticks", "sessions")


@app.command()
def capacity(
    kinds: list[str] | None = typer.Argument(None, help="orders, ticks, sessions; default: all."),
    seconds: float = typer.Option(5.0, min=1, max=600, help="Length of each step."),
    orders_p99: float = typer.Option(20.0, min=0.1, help="Target of orders, ms from the intended sending."),
    ticks_p99: float = typer.Option(10.0, min=0.1, help="Target of ticks and sessions, ms from the sending."),
    seed: int = typer.Option(1, min=0, help="Of the load and of the intervals."),
    html: Path | None = typer.Option(None, help="Write a report that opens in any browser."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> int:
    """Step each kind of load up until its target fails, and say what this host carries, with the error.

    Starts stacks of its own; takes some minutes. Exit code: 0 measured; 1 failed to run; 2 usage.
    """
    from tvops.bench.capacity_text import summary
    from tvops.bench.stepping import Options, measure_capacity
    from tvops.errors import UsageError
    from tvops.whole_files import check_place

    chosen = tuple(dict.fromkeys(kinds or KINDS))
    if strange := [kind for kind in chosen if kind not in KINDS]:
        raise UsageError(f"{strange[0]!r:.80} is no kind of load; choose from {', '.join(KINDS)}")
    if html is not None:
        check_place(html)
    options = Options(
        seconds=seconds, seed=seed, p99_ms={"orders": orders_p99, "ticks": ticks_p99, "sessions": ticks_p99}
    )
    found = measure_capacity(chosen, options, lambda text: say(f"tvops: {text}", err=True))
    if html is not None:
        from tvops.bench.page import write_page
        from tvops.bench.report_experiments import capacity_page

        write_page(html, capacity_page(found))
    show(found, summary, as_json)
    return 0
