"""Runs a real `tvops serve` for tests: own ports, own data directory, killed at the end whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil


def free_ports(count: int) -> list[int]:
    """Give different loopback ports that are free now: one after the other could be the same port again."""
    with contextlib.ExitStack() as around:
        probes = [around.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def free_port() -> int:
    """Give a loopback port that is free now."""
    return free_ports(1)[0]


class Stack:
    """One `tvops serve` process and the way to talk to it."""

    def __init__(self, data_dir: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.arguments = arguments
        self.environment = environment or {}
        self.prefix: tuple[str, ...] = ()  # a program that starts it with other rights, by exec
        self.gateway_port, self.market_port = free_ports(2)
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        # verify: reading the certificates that plain HTTP has no use for takes 40 ms
        self.client = httpx.Client(base_url=self.gateway, timeout=60, verify=False)

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def market(self) -> str:
        return f"http://127.0.0.1:{self.market_port}"

    def start(self, wait_seconds: float = 200) -> Stack:
        """Start the stack and wait until both ports say that they are healthy."""
        self.spawn()
        self.wait_ready(wait_seconds)
        return self

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.prefix, sys.executable, "-m", "tvops", "serve", *self.arguments,
                    "--data-dir", str(self.data_dir), "--gateway-port", str(self.gateway_port),
                    "--market-port", str(self.market_port),
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **self.environment},
            )  # fmt: skip

    def wait_ready(self, seconds: float = 200) -> float:
        """Wait until both `/health` answer 200; give how long that took."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.tail()}")
            if all(self.healthy(url) for url in (self.gateway, self.market)):
                return time.monotonic() - begun
            time.sleep(0.05)
        raise AssertionError(f"not ready after {seconds} s:\n{self.tail()}")

    @staticmethod
    def healthy(url: str) -> bool:
        """Tell whether `/health` answers 200; asked often, so with less than a new TLS context each time."""
        connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
        with contextlib.suppress(OSError, HTTPException), contextlib.closing(connection):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    def processes(self) -> dict[str, psutil.Process]:
        """Give the processes of the stack by name: serve, engine, market, ledger, results, market-server."""
        assert self.process is not None
        found = {"serve": psutil.Process(self.process.pid)}
        for process in psutil.process_iter(["cmdline", "ppid"]):  # leaves out those that end meanwhile
            line = process.info["cmdline"] or []
            if "tvops.engine.worker" in line and process.info["ppid"] == self.process.pid:
                found[line[line.index("tvops.engine.worker") + 1]] = process
        for role in ("ledger", "market", "results"):
            for pid_file in (self.data_dir / "valkey" / role).glob("*.pid"):
                with contextlib.suppress(psutil.Error, ValueError):
                    found[f"valkey-{role}"] = psutil.Process(int(pid_file.read_text()))
        return found

    def order(self, **fields: Any) -> httpx.Response:
        body = {"symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "quantity": "0.01", "price": "100"}
        return self.client.post("/v1/orders", json={**body, **fields})

    def orders(self, **query: Any) -> list[dict[str, Any]]:
        response = self.client.get("/v1/orders", params=query)
        response.raise_for_status()
        return list(response.json()["orders"])

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Signal the stack and wait for its end; give how long that took."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(60)
        return time.monotonic() - begun

    def kill_all(self) -> None:
        """Kill every process of the stack at once, as a power cut would."""
        for process in list(self.processes().values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert self.process is not None
        self.process.wait(60)

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None:
            with contextlib.suppress(psutil.Error):
                self.kill_all()
        self.client.close()


def stats(url: str) -> dict[str, Any]:
    return dict(json.loads(httpx.get(f"{url}/stats", timeout=60, verify=False).text))
