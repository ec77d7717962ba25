"""`tvops bench compare`, `results` and `report`: what is done with saved results."""

from __future__ import annotations

from pathlib import Path

import typer

from tvops.commands.bench.outputs import HGRM, HLOG, Outputs, show
from tvops.terminal import say

app = typer.Typer()

FAILED = 3
VOID = 4

A_AND_B = "A name given to --save, or a file."


@app.command()
def compare(
    a: str = typer.Argument(help=A_AND_B),
    b: str = typer.Argument(help=A_AND_B),
    fail_if: list[str] | None = typer.Option(
        None, "--fail-if", metavar="CONDITION",
        help="'p99>+5%', 'rest_orders.new.p50>+0.2ms', 'errors>0', 'rate<-2%'; again for more.",
    ),
    html: Path | None = typer.Option(None, help="Write a report that opens in any browser."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> int:  # fmt: skip
    """Compare two saved runs, figure by figure.

    Exit code: 0 compared; 2 usage; 3 a condition of --fail-if is met; 4 a run is void and is not compared.
    """
    from tvops.bench.compare import compare as compared_runs
    from tvops.bench.compare_text import compared_text
    from tvops.bench.conditions import parse_condition
    from tvops.bench.result import load_result

    conditions = [parse_condition(text) for text in fail_if or ()]
    results = load_result(a), load_result(b)
    for name, result in zip((a, b), results, strict=True):
        if result.void:
            say(f"tvops: {name}: is void and compares with nothing: {result.void}", err=True)
            return VOID
    compared = compared_runs(*results, sources=(a, b), conditions=conditions)
    if html is not None:
        from tvops.bench.page import write_page
        from tvops.bench.report import compare_page

        write_page(html, compare_page(compared, *results))
    show(compared, compared_text, as_json)
    return FAILED if compared.failed else 0


@app.command()
def results(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> int:
    """List the saved results, the newest first."""
    from tvops.bench.compare_text import saved_text
    from tvops.bench.store import saved_results

    show(saved_results(), saved_text, as_json)
    return 0


@app.command()
def report(
    result: str = typer.Argument(help=A_AND_B),
    html: Path | None = typer.Argument(None, help="HTML file to write, with percentile plots."),
    hgrm: Path | None = HGRM,
    hlog: Path | None = HLOG,
) -> int:
    """Write a saved result in other forms: a page that needs nothing from elsewhere, files of HdrHistogram."""
    from tvops.bench.result import load_result
    from tvops.errors import UsageError

    outputs = Outputs(html=html, hgrm=hgrm, hlog=hlog)
    if not any(outputs):
        raise UsageError("report: name what to write: an HTML file, --hgrm DIR or --hlog FILE")
    loaded = load_result(result)
    outputs.check()
    outputs.write(loaded)
    return 0


@app.command()
def locustfile() -> int:
    """Print where the locustfile is that ships, for those who have Locust."""
    from importlib.resources import files

    typer.echo(files("tvops.bench").joinpath("locustfile.py"))
    return 0
