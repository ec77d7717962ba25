"""`tvops bench orders`, `ticks`, `redis`, `run` and `list`: load, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tvops.commands.bench.outputs import HGRM, HLOG, HTML, SAVE, Outputs, show
from tvops.terminal import clean, say

if TYPE_CHECKING:
    from tvops.bench.conduct import Order
    from tvops.bench.plan import Load
    from tvops.bench.scenario import Scenario

app = typer.Typer()

GATEWAY = typer.Option(
    "", metavar="URL", help="Order gateway of a stack that runs; default: bench starts its own."
)
MARKET = typer.Option("", metavar="URL", help="Market data of a stack that runs; default: bench starts its own.")
REDIS = typer.Option("", "--redis", metavar="URL", help="Server; with a password: $TVOPS_BENCH_REDIS_URL.")
SECONDS = typer.Option(10.0, min=1, max=86_400, help="How long to measure.")
WARM_UP = typer.Option(2.0, min=0, max=3600, help="Seconds before that, which do not count.")
SEED = typer.Option(1, min=0, help="Seed of everything random.")
POISSON = typer.Option(False, "--poisson", help="Random arrivals (Poisson) in place of even ones.")
JSON = typer.Option(False, "--json", help="Print the result as JSON.")

DONE, MISSED, VOID, INTERRUPTED = 0, 3, 4, 130


@app.command()
def orders(
    rate: float = typer.Option(1000.0, min=0.1, max=1_000_000, help="Orders per second, whatever comes back."),
    count: int = typer.Option(0, min=0, help="How many; default: as many as --seconds take."),
    seconds: float = SECONDS,
    closed: bool = typer.Option(
        False, "--closed", help="As fast as answers come: what goes through, not how long it takes."
    ),
    door: str = typer.Option("rest_orders", help="rest_orders or websocket_orders."),
    mix: str = typer.Option("", metavar="KIND=SHARE,…", help="Shares of new, amend, cancel, ioc."),
    symbol: str = typer.Option("ETH-USDT", help="Instrument."),
    connections: int = typer.Option(16, min=1, max=2000, help="Connections, or sessions."),
    poisson: bool = POISSON,
    timeout: float = typer.Option(5.0, min=0.05, max=120, help="Seconds; what takes longer counts as this."),
    warm_up: float = WARM_UP,
    seed: int = SEED,
    gateway: str = GATEWAY,
    save: str = SAVE,
    html: Path | None = HTML,
    hgrm: Path | None = HGRM,
    hlog: Path | None = HLOG,
    as_json: bool = JSON,
) -> int:
    """Send orders at a rate.

    Latency counts from the time at which each was meant to be sent. All rest far below the market and are taken
    back afterwards. An API key comes from $TVOPS_API_KEY. Exit codes: see `tvops bench --help`.
    """
    from tvops.bench.conduct import Order
    from tvops.errors import UsageError

    if door not in ("rest_orders", "websocket_orders"):
        raise UsageError(f"--door {door}: choose rest_orders or websocket_orders")
    options: dict[str, Any] = {"symbol": symbol}
    options["connections" if door == "rest_orders" else "sessions"] = connections
    if mix:
        options["mix"] = _shares(mix)
    if count and not closed:
        seconds = max(count / rate, 0.001)
    load = _requests(door, rate, closed, poisson, timeout, options)
    limit = {"rate_limit": 1_000_000 if closed else max(5000.0, 4 * rate)}
    scenario = _scenario("orders", seconds, warm_up, seed, load, "synthetic:100", limit)
    return _carry_out(
        Order(scenario=scenario, gateway=gateway, most=count if closed else 0),
        Outputs(save, html, hgrm, hlog),
        as_json,
    )


@app.command()
def ticks(
    sessions: int = typer.Option(100, min=1, max=20_000, help="WebSocket sessions that listen."),
    rate: int = typer.Option(1000, min=1, help="Ticks per second of the stack that bench starts."),
    seconds: float = SECONDS,
    slow: float = typer.Option(0.0, min=0, max=1, help="Share of the sessions that read slowly."),
    slow_kb: float = typer.Option(50.0, min=0.1, help="kB per second that a slow one reads."),
    encoding: str = typer.Option("binary", help="binary or json."),
    channel: str = typer.Option("ticks", help="ticks, trades or book."),
    processes: int = typer.Option(1, min=1, max=32, help="Client processes."),
    warm_up: float = WARM_UP,
    seed: int = SEED,
    market: str = MARKET,
    save: str = SAVE,
    html: Path | None = HTML,
    hgrm: Path | None = HGRM,
    hlog: Path | None = HLOG,
    as_json: bool = JSON,
) -> int:
    """Listen to market data in many sessions.

    The rate is that of the feed: bench starts a stack of its own with as many synthetic ticks; of a stack that
    runs (--market) it tells the rate that it saw. Exit codes: see `tvops bench --help`.
    """
    from tvops.bench.conduct import Order
    from tvops.bench.plan import Load

    load = Load(
        door="sessions", processes=processes,
        options={"sessions": sessions, "slow_share": slow, "slow_kb_per_second": slow_kb,
                 "encoding": encoding, "channel": channel},
    )  # fmt: skip
    own = {"max_sessions": sessions + 10}
    scenario = _scenario("ticks", seconds, warm_up, seed, load, f"synthetic:{rate}", own)
    return _carry_out(Order(scenario=scenario, market=market), Outputs(save, html, hgrm, hlog), as_json)


@app.command()
def redis(
    server: str = REDIS,
    rate: float = typer.Option(1000.0, min=0.1, max=1_000_000, help="Commands per second."),
    seconds: float = SECONDS,
    closed: bool = typer.Option(False, "--closed", help="As fast as answers come."),
    mix: str = typer.Option("", metavar="KIND=SHARE,…", help="Shares of ping, xadd, get."),
    connections: int = typer.Option(4, min=1, max=1000, help="Connections."),
    poisson: bool = POISSON,
    timeout: float = typer.Option(5.0, min=0.05, max=120, help="Seconds; what takes longer counts as this."),
    warm_up: float = WARM_UP,
    seed: int = SEED,
    save: str = SAVE,
    html: Path | None = HTML,
    hgrm: Path | None = HGRM,
    hlog: Path | None = HLOG,
    as_json: bool = JSON,
) -> int:
    """Send commands to a Valkey or Redis server; one that keeps a ledger is refused.

    Keys have names of their own (tvops:bench:…) and are removed. Exit codes: see `tvops bench --help`.
    """
    from tvops.bench.conduct import Order

    options: dict[str, Any] = {"connections": connections} | ({"mix": _shares(mix)} if mix else {})
    load = _requests("redis", rate, closed, poisson, timeout, options)
    scenario = _scenario("redis", seconds, warm_up, seed, load, "synthetic:100", {})
    return _carry_out(Order(scenario=scenario, redis=_redis_url(server)), Outputs(save, html, hgrm, hlog), as_json)


@app.command()
def run(
    scenario: str = typer.Argument(help="Name of one that ships (see tvops bench list), or a YAML file."),
    seconds: float | None = typer.Option(None, min=0.1, max=86_400, help="Measure so long; phases are stretched."),
    warm_up: float | None = typer.Option(None, min=0, max=3600, help="Seconds that do not count."),
    seed: int | None = typer.Option(None, min=0, help="Seed of everything random."),
    gateway: str = GATEWAY,
    market: str = MARKET,
    server: str = REDIS,
    save: str = SAVE,
    html: Path | None = HTML,
    hgrm: Path | None = HGRM,
    hlog: Path | None = HLOG,
    as_json: bool = JSON,
) -> int:
    """Carry a scenario out, and hold what was found against its targets.

    An API key comes from $TVOPS_API_KEY. Exit codes: see `tvops bench --help`.
    """
    import msgspec

    from tvops.bench.conduct import Order
    from tvops.bench.scenario import MOST_SEED, load_scenario
    from tvops.errors import UsageError

    if seed is not None and seed > MOST_SEED:
        raise UsageError(f"--seed: has to be at most {MOST_SEED}")
    changes = {"seconds": seconds, "warm_up": warm_up, "seed": seed}
    chosen = msgspec.structs.replace(
        load_scenario(scenario), **{name: value for name, value in changes.items() if value is not None}
    )
    order = Order(scenario=chosen, gateway=gateway, market=market, redis=_redis_url(server))
    return _carry_out(order, Outputs(save, html, hgrm, hlog), as_json)


@app.command("list")
def list_scenarios(as_json: bool = JSON) -> int:
    """Show the scenarios that ship."""
    from tvops.bench.scenario import load_scenario, shipped

    found = [(one.name, one.seconds, one.text) for one in map(load_scenario, shipped())]
    if as_json:
        show([{"name": name, "text": text, "seconds": seconds} for name, seconds, text in found], str, as_json)
    else:
        say("\n".join(f"{name:<12}{seconds:>5g} s  {text}" for name, seconds, text in found))
    return DONE


def _requests(
    door: str, rate: float, closed: bool, poisson: bool, timeout: float, options: dict[str, Any]
) -> Load:
    from tvops.bench.plan import Load

    return Load(
        door=door, rate=None if closed else rate, closed=closed, timeout=timeout, options=options,
        arrivals="poisson" if poisson else "constant",
    )  # fmt: skip


def _scenario(
    name: str, seconds: float, warm_up: float, seed: int, load: Load, feed: str, settings: dict[str, Any]
) -> Scenario:
    """Put a scenario together, and check it as one from a file; what is wrong is told by the option's name."""
    from pathlib import Path

    import msgspec

    from tvops.bench.scenario import read_scenario
    from tvops.errors import UsageError
    from tvops.yaml_lines import Located

    value = {
        "name": name, "seconds": seconds, "warm_up": warm_up, "seed": seed,
        "stack": {"feed": feed, "settings": settings}, "loads": [msgspec.to_builtins(load)],
    }  # fmt: skip
    try:
        return read_scenario(Located(Path(name), value, {}))
    except UsageError as error:
        about = str(error).removeprefix(f"{name}:1: ").removeprefix("loads[0].").removeprefix("options.")
        raise UsageError(f"--{about}") from None


def _carry_out(order: Order, outputs: Outputs, as_json: bool) -> int:
    import msgspec

    from tvops.bench.conduct import conduct
    from tvops.bench.printing import render

    outputs.check()
    with _Progress() as progress:
        result = conduct(msgspec.structs.replace(order, told=progress.tell))
    try:
        outputs.write(result)
    finally:  # neither a full disk nor a closed pipe takes the other one's result
        show(result, render, as_json)
    if result.partial:  # it may be void as well
        return INTERRUPTED
    return {"void": VOID, "missed": MISSED}.get(result.verdict, DONE)


class _Progress:
    """One line on stderr that is written over; nothing where that is no terminal."""

    def __init__(self) -> None:
        import sys

        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def tell(self, text: str) -> None:
        if self._terminal:
            typer.echo(f"\r\x1b[K{clean(text[:110])}", nl=False, err=True)
        elif text.startswith("starting"):
            say(f"tvops bench: {text}", err=True)

    def __exit__(self, *error: object) -> None:
        if self._terminal:
            typer.echo("\r\x1b[K", nl=False, err=True)


def _shares(text: str) -> dict[str, float]:
    from tvops.errors import UsageError

    shares: dict[str, float] = {}
    for part in text.split(","):
        kind, separator, share = part.strip().partition("=")
        try:
            shares[kind] = float(share)
        except ValueError:
            separator = ""
        if not separator:
            raise UsageError(f"--mix {part}: must be KIND=SHARE, like new=60,cancel=40")
    return shares


def _redis_url(given: str) -> str:
    import os

    from tvops.errors import UsageError

    if "@" in given:
        raise UsageError("--redis: every user can read the command line; set TVOPS_BENCH_REDIS_URL instead")
    return given or os.environ.get("TVOPS_BENCH_REDIS_URL", "")
