"""`tvops top`: watch running stacks, live or from a recording."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from click.core import ParameterSource

from tvops.errors import ServerError, TvopsError, UsageError

if TYPE_CHECKING:
    from tvops.top.addresses import Stack
    from tvops.top.baseline import Baseline
    from tvops.top.replay import Replay

app = typer.Typer()

SCREEN = ""
_HEEDED: dict[str, tuple[str, tuple[str, ...]]] = {
    "hertz": ("--hz", (SCREEN,)),
    "record": ("--record", (SCREEN,)),
    "theme": ("--theme", (SCREEN,)),
    "baseline": ("--baseline", (SCREEN, "--once")),
    "view": ("--view", (SCREEN, "--once")),
    "count": ("--count", ("--json", "--csv", "--hlog", "--hgrm")),
    "seconds": ("--seconds", ("--once", "--json", "--csv", "--hlog", "--hgrm")),
}
"""Parameters, their options, and the forms of output that heed them."""


@app.command()
def top(
    context: typer.Context,
    addresses: list[str] | None = typer.Argument(
        None,
        metavar="[ADDRESS]...",
        help="Stacks: HOST (its two default ports), URL, or URL,URL. Default: this machine.",
    ),
    gateway: str | None = typer.Option(None, metavar="URL", help="Gateway of a stack."),
    market: str | None = typer.Option(None, metavar="URL", help="Market data port of that stack."),
    hertz: float = typer.Option(4.0, "--hz", min=0.1, max=20.0, help="How often a second ports are asked."),
    record: Path | None = typer.Option(
        None, metavar="FILE", help="Keep what ports tell (books are not kept) in a new file."
    ),
    replay: Path | None = typer.Option(None, metavar="FILE", help="Play a recording instead of asking ports."),
    baseline: Path | None = typer.Option(None, metavar="FILE", help="A recording to compare with."),
    once: bool = typer.Option(False, "--once", help="Print one frame as text and exit."),
    view: str = typer.Option("overview", metavar="NAME", help="The view to begin with, or to print with --once."),
    as_json: bool = typer.Option(False, "--json", help="Print samples as JSON, one a line, and exit."),
    as_csv: bool = typer.Option(False, "--csv", help="Print metrics as CSV and exit."),
    hlog: Path | None = typer.Option(
        None, metavar="FILE", help="Write a histogram log (HdrHistogram) of every stage into a new file, and exit."
    ),
    hgrm: Path | None = typer.Option(
        None, metavar="DIR", help="Write a percentile distribution (HdrHistogram) of every stage, and exit."
    ),
    count: int = typer.Option(1, "--count", "-n", min=1, help="Samples of --json, --csv, --hlog and --hgrm."),
    seconds: float = typer.Option(1.0, min=0.1, max=3600.0, help="Time between samples."),
    theme: str | None = typer.Option(
        None, help="Theme: textual-dark, textual-light, nord, ansi-dark (16 colours), ..."
    ),
    config: Path | None = typer.Option(None, help="Settings file (YAML); default: $TVOPS_CONFIG."),
) -> int:
    """Show latencies, targets, sessions, servers and processes of running stacks, and change nothing.

    Needs a terminal, except with --once, --json, --csv, --hlog and --hgrm; these exit with 1 where no port
    answers. An API key, where a stack wants one, comes from $TVOPS_API_KEY. The key ? shows the others.
    """
    from tvops.settings import load_settings
    from tvops.top.addresses import find_stacks
    from tvops.top.baseline import read_baseline
    from tvops.top.frame import VIEWS
    from tvops.top.recording import Recording
    from tvops.top.replay import Replay

    if view not in (names := [known.name for known in VIEWS]):
        raise UsageError(f"--view {view}: there is no such view; there are {', '.join(names)}")
    exported = hlog is not None or hgrm is not None
    if once + as_json + as_csv + exported > 1:
        raise UsageError("--once, --json, --csv and the pair of --hlog and --hgrm: give one of them")
    if replay and (addresses or gateway or market or record):
        raise UsageError("--replay: plays a file, so there are no addresses to give and nothing to record")
    chosen = {"--once": once, "--json": as_json, "--csv": as_csv, "--hlog": hlog, "--hgrm": hgrm}
    _refuse_idle(context, next((form for form, wanted in chosen.items() if wanted), SCREEN), replay is not None)
    settings = load_settings({}, file=config)
    stacks = find_stacks(addresses or [], gateway, market, settings.gateway_port, settings.market_port)
    if exported:
        return _export(stacks, replay, hgrm, hlog, count, seconds)
    before = read_baseline(baseline) if baseline else None
    with contextlib.ExitStack() as opened:
        played = Replay(opened.enter_context(contextlib.closing(Recording(replay)))) if replay else None
        if once or as_json or as_csv:
            form = "once" if once else "json" if as_json else "csv"
            return _print(stacks, played, before, form, view, count, seconds)
        if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):  # it is drawn on stderr
            raise UsageError("top needs a terminal; without one use --once, --json, --csv, --hlog or --hgrm")
        return _watch(stacks, played, before, hertz, record, theme, view)


def _refuse_idle(context: typer.Context, form: str, replayed: bool) -> None:
    """Raise UsageError where an option is given that would do nothing."""
    for name, (option, forms) in _HEEDED.items():
        if context.get_parameter_source(name) is ParameterSource.DEFAULT:
            continue
        if form not in forms:
            where = f"with {form}; leave one of them out" if form else f"without one of {', '.join(forms)}"
            raise UsageError(f"{option}: does nothing {where}")
        if replayed and (name == "count" or (name == "seconds" and form == "--once")):
            raise UsageError(f"{option}: does nothing with --replay here; leave it out")


def _print(
    stacks: tuple[Stack, ...],
    played: Replay | None,
    before: Baseline | None,
    form: str,
    view: str,
    count: int,
    seconds: float,
) -> int:
    from tvops.top import plain
    from tvops.top.desk import Desk
    from tvops.top.model import Model

    def tell(model: Model) -> None:
        moment = model.moment(time.monotonic_ns())
        if form == "json":
            typer.echo(plain.to_json(moment))
        elif form == "csv":
            for row in plain.csv_rows(moment):
                typer.echo(row)

    if form == "csv":
        typer.echo(plain.csv_head())
    if played is not None and form != "once":
        for moment in plain.replay_moments(played, seconds):
            for row in [plain.to_json(moment)] if form == "json" else plain.csv_rows(moment):
                typer.echo(row)
        return 0
    if played is not None:
        played.seek(played.end)
        model = played.model
    else:
        # One frame takes two samples: rates and windows are differences.
        model = plain.sample(stacks, _api_key(), 2 if form == "once" else count, seconds, tell)
    if form == "once":
        size = shutil.get_terminal_size((120, 50))
        desk = Desk(model, baseline=before, replay=played)
        desk.show(view)
        if view == "book" and played is None:
            plain.fetch_book(desk, _api_key())
        typer.echo(plain.frame_text(desk, size.columns, size.lines, time.monotonic_ns()), nl=False)
    return 0 if plain.reached(model) else 1


def _export(
    stacks: tuple[Stack, ...],
    replay: Path | None,
    hgrm: Path | None,
    hlog: Path | None,
    count: int,
    seconds: float,
) -> int:
    from tvops.latency_files import follow_hlog
    from tvops.top.exports import check_exports, export, live_readings
    from tvops.top.recording import Recording

    check_exports(hgrm, hlog)
    if replay is None:
        readings = live_readings(stacks, _api_key(), count, seconds)
        found = export(readings, stacks, seconds, hgrm, hlog, follow_hlog)
    else:
        with contextlib.closing(Recording(replay)) as recording:
            frames = (recording.frame(number) for number in range(len(recording.times)))
            found = export(frames, recording.stacks, seconds, hgrm, hlog)
    if not found:
        raise ServerError(
            "nothing to write: no port gave telemetry for the length of an interval; is the stack up?"
        )
    return 0


def _watch(
    stacks: tuple[Stack, ...],
    played: Replay | None,
    before: Baseline | None,
    hertz: float,
    record: Path | None,
    theme: str | None,
    view: str,
) -> int:
    from textual.theme import BUILTIN_THEMES

    from tvops.top.app import Top, plain_terminal
    from tvops.top.choices import choices_file, read_choices
    from tvops.top.desk import Desk
    from tvops.top.ending import run_to_the_end
    from tvops.top.model import Model
    from tvops.top.recording import Writer
    from tvops.top.sampler import Sampler
    from tvops.top.show import print_lines

    if theme is not None and theme not in BUILTIN_THEMES:
        raise UsageError(f"--theme {theme}: there is no such theme; there are {', '.join(BUILTIN_THEMES)}")
    path = choices_file()
    choices, told = read_choices(path)
    model = Model(stacks)
    desk = Desk(model, choices, before, played, ascii_only=plain_terminal())
    desk.show(view)
    source = None if played else Sampler([url for stack in stacks for url in stack.urls], _api_key(), hertz)
    writer = Writer(record, stacks) if record else None
    desk.recording = record.name if record else ""
    wanted = theme or choices.theme or ("ansi-dark" if plain_terminal() else "textual-dark")
    screen = Top(desk, source, hertz, wanted, writer, None if told else path, told=told)
    run_to_the_end(screen)
    if writer is not None:
        writer.close()
    if screen.return_code:
        raise TvopsError("top has ended because of a fault of its own")
    print_lines(screen.last_lines[:-1], screen.role_styles)  # without the line of keys
    return 0


def _api_key() -> str:
    return os.environ.get("TVOPS_API_KEY", "")
