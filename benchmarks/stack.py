"""The whole stack under load: sessions, ticks and orders at once, and the memory of all its processes.

    python benchmarks/stack.py [--sessions 500] [--ticks 10000] [--orders 1000] [--seconds 60]

Starts `tvops serve` with synthetic ticks on ports and a data directory of its own, runs `benchmarks/stream.py` and
`benchmarks/orders.py` against it, and prints what they found beside the stack's own figures. Clients and stack
share the machine: the clients take about as much of it as the stack does.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Serve:
    """A running `tvops serve`, and the status lines that it prints."""

    def __init__(self, ticks: int, folder: str) -> None:
        self.gateway, self.market = free_port(), free_port()
        self.lines: list[dict[str, Any]] = []
        arguments = ["serve", "--json", "--feed", f"synthetic:{ticks}", "--data-dir", folder]
        arguments += ["--set", "log_level=error"]
        ports = ["--gateway-port", str(self.gateway), "--market-port", str(self.market)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tvops", *arguments, *ports], stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def wait_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not (self.lines and self.lines[-1]["ready"]):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit("the stack did not get ready")
            time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--ticks", type=int, default=10_000, help="ticks per second")
    parser.add_argument("--orders", type=int, default=1_000, help="orders per second")
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tvops-") as folder:
        serve = Serve(arguments.ticks, folder)
        try:
            serve.wait_ready(120)
            seconds = str(arguments.seconds)
            rate = ["--rate", str(arguments.orders), "--seconds", seconds, "--closed-seconds", "0"]
            orders = subprocess.Popen(
                [sys.executable, str(HERE / "orders.py"), "--port", str(serve.gateway), *rate],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            subprocess.run(
                [sys.executable, str(HERE / "stream.py"), "--attach", f"ws://127.0.0.1:{serve.market}",
                 "--sessions", str(arguments.sessions), "--seconds", seconds],
                check=True, timeout=arguments.seconds + 60,
            )  # fmt: skip
            print(orders.communicate(timeout=60)[0], end="")
        finally:
            serve.process.terminate()
            serve.process.wait(10)
    loaded = [line for line in serve.lines if line["orders_per_s"]]
    most = max(line["memory_mb"] for line in serve.lines)
    print(f"stack      {most:.0f} MB at most over all processes (PSS), {serve.lines[-1]['restarts']} restarts")
    if loaded:
        line = loaded[len(loaded) // 2]
        print(
            f"           {line['ticks_per_s']:,.0f} ticks/s, {line['orders_per_s']:,.0f} orders/s by its own count"
        )


if __name__ == "__main__":
    main()
