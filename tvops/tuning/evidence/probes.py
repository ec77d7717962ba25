"""What is measured: named probes, each with a setup, samples in ns and an end.

A probe is set up anew for every block, because many settings count for new sockets and processes only.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int64]

ANSWER_SECONDS = 10.0
"""After which a partner that does not answer is given up."""

MESSAGE = b"x" * 64
_SLEEP_NS = 100_000


class ProbeError(Exception):
    """A probe cannot be set up here, or its partner does not answer; `str()` is the reason, in one clause."""


class Fixture(ABC):
    """What several probes share, e.g. a server: ready before them in every block, closed after them."""

    @abstractmethod
    def setup(self) -> None:
        """Have it ready; raise ProbeError."""

    @abstractmethod
    def close(self) -> None:
        """End it. May be called twice."""


class Probe(ABC):
    """One way to measure a latency. `sample` may be called several times between `setup` and `close`."""

    name: str
    description: str
    most_samples = 4000  # in a block
    sent = ""  # what goes to a server that is not the experiment's own
    needs: Fixture | None = None

    def setup(self) -> None:  # noqa: B027 - most, not all, have something to do
        """Open what is needed; raise ProbeError."""

    @abstractmethod
    def once(self) -> Callable[[], None]:
        """Give the function that one sample times."""

    def sample(self, count: int, seconds: float) -> Samples:
        """Give ``count`` latencies in ns, or as many as ``seconds`` allow; raise ProbeError."""
        act, clock = self.once(), time.perf_counter_ns
        taken = np.empty(count, np.int64)
        end = clock() + int(seconds * 1e9)
        with collector_off():
            for i in range(count):
                begun = clock()
                act()
                now = clock()
                taken[i] = now - begun
                if now > end:
                    return taken[: i + 1]
        return taken

    def close(self) -> None:  # noqa: B027
        """Close what `setup` opened, also where that failed in the middle. May be called twice."""


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector out of the samples."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class WakeUp(Probe):
    """How late a sleeping process wakes up."""

    name = "wakeup"
    description = f"clock_nanosleep of {_SLEEP_NS // 1000} us (CLOCK_MONOTONIC, absolute); how late it returns"

    def once(self) -> Callable[[], None]:
        """Sleep."""
        seconds, sleep = _SLEEP_NS / 1e9, time.sleep
        return lambda: sleep(seconds)

    def sample(self, count: int, seconds: float) -> Samples:
        """Give how much longer than asked for each sleep took."""
        return super().sample(count, seconds) - _SLEEP_NS


class Partner:
    """A child process that ends with this one (`partner.py`), on a CPU of its own where one is given."""

    def __init__(self, *arguments: str, cpu: int | None = None, stdin: bytes = b"") -> None:
        script, own_cpu = str(Path(__file__).with_name("partner.py")), "" if cpu is None else str(cpu)
        command = [sys.executable, "-I", "-S", script, str(os.getpid()), own_cpu, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdin is not None
        self.process.stdin.write(stdin)
        self.process.stdin.close()

    def first_line(self) -> str:
        """Give the first line that it prints; raise ProbeError where none comes."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], ANSWER_SECONDS)
        line = self.process.stdout.readline().decode() if readable else ""
        if not line.endswith("\n"):
            raise ProbeError("the partner process does not start")
        return line.strip()

    def end(self) -> None:
        """Kill it and wait for its end."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class RoundTrip(Probe):
    """How long 64 bytes take to another process and back."""

    def __init__(self, kind: str, cpu: int | None = None) -> None:
        over = {"tcp": "TCP on 127.0.0.1 (TCP_NODELAY)", "udp": "UDP on 127.0.0.1", "unix": "a unix stream socket"}
        self.name = f"{kind}_round_trip"
        self.description = f"{len(MESSAGE)} bytes over {over[kind]} to another process and back, blocking calls"
        self._kind, self._cpu = kind, cpu
        self._partner: Partner | None = None
        self._socket: socket.socket | None = None

    def setup(self) -> None:
        """Start the partner and connect to it."""
        self._partner = Partner(self._kind, cpu=self._cpu)
        address = self._partner.first_line()
        try:
            self._socket = self._connect(address)
        except OSError as error:
            raise ProbeError(f"cannot connect to its partner: {error.strerror}") from None

    def _connect(self, address: str) -> socket.socket:
        if self._kind == "unix":
            client = socket.socket(socket.AF_UNIX)
        else:
            client = socket.socket(
                socket.AF_INET, socket.SOCK_DGRAM if self._kind == "udp" else socket.SOCK_STREAM
            )
        wait_at_most(client, ANSWER_SECONDS)
        client.connect(bytes.fromhex(address) if self._kind == "unix" else ("127.0.0.1", int(address)))
        if self._kind == "tcp":
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def once(self) -> Callable[[], None]:
        """Send and receive."""
        assert self._socket is not None
        send, receive, size = self._socket.send, self._socket.recv, len(MESSAGE)

        def there_and_back() -> None:
            send(MESSAGE)
            missing = size
            while missing:
                got = len(receive(missing))
                if not got:
                    raise ProbeError("its partner has ended")
                missing -= got

        return there_and_back

    def sample(self, count: int, seconds: float) -> Samples:
        """Give round trips."""
        try:
            return super().sample(count, seconds)
        except OSError as error:
            raise ProbeError(f"its partner does not answer: {error.strerror}") from None

    def close(self) -> None:
        """Close the socket and end the partner."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._partner is not None:
            self._partner.end()
            self._partner = None


def wait_at_most(connection: socket.socket, seconds: float) -> None:
    """Bound blocking calls by SO_RCVTIMEO and SO_SNDTIMEO.

    A timeout of Python's own would put a poll(2) before every call, and be measured with it.
    """
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def host_probes(partner_cpu: int | None = None) -> list[Probe]:
    """Give the probes that need nothing but this host."""
    return [WakeUp(), *(RoundTrip(kind, partner_cpu) for kind in ("tcp", "udp", "unix"))]


def two_cpus() -> tuple[int, int] | None:
    """Give the CPUs for this process and its partners; None where it may run on one only.

    Left alone, the scheduler has both ends of a round trip on one CPU in one block and on two in the next, and
    that makes more of a difference than most settings do. The last two are taken: interrupts tend to go to the
    first.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[-2], allowed[-1]) if len(allowed) > 1 else None


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Keep this thread on a CPU."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
