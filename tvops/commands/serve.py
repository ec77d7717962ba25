"""`tvops serve`: run the stack."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer()


@app.command()
def serve(
    services: list[str] | None = typer.Argument(
        None, metavar="[SERVICE]...", help="engine, market; default: both."
    ),
    feed: str | None = typer.Option(None, help="sim (default), replay:PATH or synthetic:TICKS_PER_SECOND."),
    speed: float | None = typer.Option(None, help="Replay this many times faster."),
    loop: bool | None = typer.Option(None, "--loop/--no-loop", help="Start the replay again at its end."),
    mirror: bool | None = typer.Option(
        None, "--mirror/--no-mirror", help="Let the replayed book stand in ours, to trade against it."
    ),
    profile: str | None = typer.Option(
        None, help="dev (default), prod, ull or a file: settings, and what needs no root of its tuning."
    ),
    symbols: str | None = typer.Option(None, help="Instruments that market data carries, comma-separated."),
    instruments: str | None = typer.Option(None, help="Instruments file (YAML)."),
    host: str | None = typer.Option(None, help="Address to listen on."),
    gateway_port: int | None = typer.Option(None, help="Port of the order gateway and the chart page."),
    market_port: int | None = typer.Option(None, help="Port of market data."),
    data_dir: str | None = typer.Option(None, help="Where everything is kept."),
    valkey_binary: str | None = typer.Option(None, help="valkey-server or redis-server to run."),
    config: Path | None = typer.Option(None, help="Settings file (YAML); default: $TVOPS_CONFIG."),
    assignments: list[str] | None = typer.Option(None, "--set", metavar="KEY=VALUE", help="Any other setting."),
    as_json: bool = typer.Option(False, "--json", help="Print the status as JSON lines."),
) -> int:
    """Run the stack: servers, order engine, market data and chart page. Ctrl-C ends it."""
    import msgspec

    from tvops.engine.telemetry.logs import chosen_format, set_up_logging
    from tvops.errors import SettingsError
    from tvops.serving import run_stack
    from tvops.settings import load_settings

    arguments = {
        "services": tuple(services) if services else None, "feed": feed, "speed": speed, "loop": loop,
        "mirror": mirror, "profile": profile, "symbols": symbols, "instruments": instruments, "host": host,
        "gateway_port": gateway_port, "market_port": market_port, "data_dir": data_dir,
        "valkey_binary": valkey_binary,
    }  # fmt: skip
    for assignment in assignments or ():
        key, separator, value = assignment.partition("=")
        if not separator:
            raise SettingsError(f"--set {assignment}: must be KEY=VALUE")
        if key.endswith("_url") and "@" in value:
            raise SettingsError(f"{key}: every user can read the command line; set TVOPS_{key.upper()} instead")
        arguments[key] = value
    settings = load_settings(arguments, file=config)
    # the workers' stderr is a pipe to us, whatever ours is
    settings = msgspec.structs.replace(settings, log_format=chosen_format(settings.log_format))
    set_up_logging(settings.log_level, "serve", settings.log_format)
    return run_stack(settings, as_json)
