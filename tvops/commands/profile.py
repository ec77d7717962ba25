"""`tvops profile`: where a running service spends its time, and what it allocates."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

app = typer.Typer()


class Mode(StrEnum):
    """What is looked for."""

    CPU = "cpu"
    ALLOC = "alloc"
    PERF = "perf"


@app.command()
def profile(
    service: str | None = typer.Argument(
        None, metavar="[SERVICE]", help="engine, market or supervisor; default: the engine."
    ),
    pid: int | None = typer.Option(None, min=1, help="Another process instead."),
    seconds: float = typer.Option(10.0, min=0.5, max=600.0, help="How long."),
    mode: Mode = typer.Option(
        Mode.CPU, help="Python's time, allocations, or time with the kernel's share (perf)."
    ),
    inside: bool = typer.Option(
        False, "--inside", help="Have the service profile itself: slower, needs no rights."
    ),
    output: Path | None = typer.Option(
        None, metavar="DIR", help="Where the files go; default: profiles in the data directory."
    ),
    data_dir: str | None = typer.Option(None, help="Data directory of the stack."),
    config: Path | None = typer.Option(None, help="Settings file (YAML); default: $TVOPS_CONFIG."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> int:
    """Profile a service of the running stack, and keep flame graph or table with the host's fingerprint.

    Uses py-spy, memray and perf where they are installed; else the service profiles itself with cProfile or
    tracemalloc. Prints the files that it wrote. Ctrl-C ends it early and keeps what py-spy or
    perf saw until then.
    """
    from functools import partial

    from tvops.json_text import json_line
    from tvops.profiling.conduct import take_profile
    from tvops.profiling.subject import find_subject
    from tvops.settings import load_settings

    folder = load_settings({"data_dir": data_dir}, file=config).data_path
    subject = find_subject(service, pid, folder)
    tell = partial(typer.echo, err=True)
    result, path = take_profile(subject, mode.value, seconds, output or folder / "profiles", inside, tell)
    if result.note:
        tell(f"{result.tool} instead: {result.note}")
    if as_json:
        typer.echo(json_line(result))
    else:
        typer.echo("\n".join(str(path.with_name(name)) for name in (*result.files, path.name)))
    if result.ended:
        tell(f"tvops: process {result.pid} ended while it was profiled; saved is what there was until then")
    if result.interrupted:
        tell("tvops: interrupted; saved is what there was until then")
        return 130
    return int(result.ended)
