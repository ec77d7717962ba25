"""`tvops bench ab`: two settings or two stacks against each other, in interleaved runs."""

from __future__ import annotations

import secrets
from pathlib import Path

import typer

from tvops.commands.bench.comparing import VOID
from tvops.commands.bench.outputs import show
from tvops.terminal import say

app = typer.Typer()


@app.command()
def ab(
    scenario: str = typer.Argument("steady", help="Scenario that ships, or a file; searches cannot be used."),
    a: list[str] | None = typer.Option(
        None, "--a", metavar="KEY=VALUE", help="A setting of stack A; again for more."
    ),
    b: list[str] | None = typer.Option(
        None, "--b", metavar="KEY=VALUE", help="A setting of stack B; again for more."
    ),
    a_url: str = typer.Option("", help="Gateway of a running stack A, in place of one that bench starts."),
    b_url: str = typer.Option("", help="Gateway of a running stack B."),
    a_market: str = typer.Option("", help="Market data of a running stack A."),
    b_market: str = typer.Option("", help="Market data of a running stack B."),
    control_only: bool = typer.Option(
        False,
        "--control-only",
        help="Two stacks that are the same: what differs is noise, and is to be told as such.",
    ),
    pairs: int = typer.Option(12, min=6, max=500, help="Pairs of runs, and as many of A against A."),
    seconds: float = typer.Option(3.0, min=0.5, max=600, help="Length of each run."),
    warm_up: float = typer.Option(0.5, min=0.0, max=60, help="Seconds before each run that do not count."),
    seed: int | None = typer.Option(None, min=0, help="Of the order of the runs; default: a random one."),
    html: Path | None = typer.Option(None, help="Write a report that opens in any browser."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> int:
    """Say whether B is better or worse than A: pairs of short runs in random order, with an A/A control.

    Both stacks run all the time; only one of them has load. Exit code: 0 measured; 2 usage; 4 void.
    """
    import contextlib

    import msgspec

    from tvops.bench.ab import run_ab
    from tvops.bench.compare_text import ab_text
    from tvops.bench.scenario import load_scenario
    from tvops.bench.sides import Addresses, measuring, own_stacks, parse_settings
    from tvops.errors import UsageError
    from tvops.whole_files import check_place

    if bool(a_url) != bool(b_url):
        raise UsageError("--a-url and --b-url: give both or none")
    if a_url and (a or b):
        raise UsageError("--a and --b are settings of stacks that bench starts: leave --a-url and --b-url out")
    if control_only and (a_url or b):
        raise UsageError("--control-only: B is what A is; leave --b, --a-url and --b-url out")
    if control_only:
        b = a
    elif not a_url and parse_settings("--a", a or ()) == parse_settings("--b", b or ()):
        raise UsageError(
            "A and B are the same: give --a or --b a setting, or --a-url and --b-url (or --control-only)"
        )
    if html is not None:
        check_place(html)
    chosen = load_scenario(scenario)
    if chosen.search is not None:
        raise UsageError(f"{scenario}: is a search for the knee, which takes too long for a pair; choose another")
    chosen = msgspec.structs.replace(chosen, seconds=seconds, warm_up=warm_up)
    seed = secrets.randbelow(1 << 31) if seed is None else seed

    def tell(text: str) -> None:
        say(f"tvops: {text}", err=True)

    with contextlib.ExitStack() as stack:
        if a_url:
            sides = Addresses(a_url, a_market), Addresses(b_url, b_market)
            labels = str(sides[0]), str(sides[1])
            measure = measuring(chosen, {"a": sides[0], "b": sides[1]})
        else:
            labels = " ".join(a or ()) or "the defaults", " ".join(b or ()) or "the defaults"
            settings = parse_settings("--a", a or ()), parse_settings("--b", b or ())
            measure = stack.enter_context(own_stacks(chosen, {"a": settings[0], "b": settings[1]}, tell))
        found = run_ab(measure, labels, pairs, seed, tell)
    if html is not None:
        from tvops.bench.page import write_page
        from tvops.bench.report_experiments import ab_page

        write_page(html, ab_page(found))
    show(found, ab_text, as_json)
    return VOID if found.void else 0
