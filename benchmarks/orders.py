"""Orders over HTTP against a running stack: latency at a fixed rate, and the most that go through.

    python benchmarks/orders.py --rate 1000 --seconds 60

A short form of `tvops bench orders`, once as an open and once as a closed loop (docs/bench.md says what is
measured). All orders rest far below the market, or are IOC there; what rests is cancelled afterwards. Latencies
are this client's: on a small machine it competes with the stack for the processor.

An API key is taken from $TVOPS_API_KEY.
"""

from __future__ import annotations

import argparse
import sys

from tvops.bench.conduct import Order, conduct
from tvops.bench.plan import Load
from tvops.bench.printing import render
from tvops.bench.scenario import Scenario

WARM_UP = 1.0


def measured(arguments: argparse.Namespace, load: Load, seconds: float) -> bool:
    """Carry one load out and print the figures; tell whether every order was answered with success."""
    scenario = Scenario(name="orders", seconds=seconds, warm_up=WARM_UP, loads=(load,))
    result = conduct(Order(scenario=scenario, gateway=f"http://{arguments.host}:{arguments.port}"))
    print(render(result))
    return not any(operation.errors for operation in result.operations)


def main(arguments: argparse.Namespace) -> bool:
    options = {"symbol": arguments.symbol, "connections": arguments.connections, "mix": {"new": 1}}
    good = measured(arguments, Load(door="rest_orders", rate=arguments.rate, options=options), arguments.seconds)
    if arguments.closed_seconds:
        options = {**options, "connections": arguments.closed_connections, "mix": {"ioc": 1}}
        measured(arguments, Load(door="rest_orders", closed=True, options=options), arguments.closed_seconds)
        print("  (429: the stack's rate_limit; raise it to see what the stack can do)")
    return good


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="gateway port of the stack")
    parser.add_argument("--symbol", default="ETH-USDT")
    parser.add_argument("--rate", type=float, default=1000, help="orders per second of the open loop")
    parser.add_argument("--seconds", type=float, default=10, help="length of the open loop")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--closed-seconds", type=float, default=5, help="length of the closed loop; 0: none")
    parser.add_argument("--closed-connections", type=int, default=32)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(0 if main(parse(sys.argv[1:])) else 1)
