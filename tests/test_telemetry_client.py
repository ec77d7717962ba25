"""The client on endpoints of every kind: real sockets that are dead, slow, half-dead or talk garbage."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.endpoints import Handler, answer, endpoint, says
from tests.stack import free_port
from tvops import http_endpoint
from tvops.engine.telemetry.document import Event, HostLoad, Metric, Stage, Telemetry
from tvops.engine.telemetry.histogram import Histogram, empty, pack
from tvops.errors import UsageError
from tvops.telemetry_client import MAX_ANSWER_BYTES, Reading, TelemetryClient
from tvops.top.sampler import Sampler

GOOD = Telemetry(
    process="engine", version="1", pid=1, started=2, time=3, health={"gateway": ("ok", "")}, stats={},
    stages={"loop_lag": Stage("lag", pack(np.where(np.arange(len(empty())) == 70, 5, 0).astype(np.int64), 70))},
    metrics=(), events=(),
)  # fmt: skip
METRIC = Metric(name="tv_cpu", text="", unit="%", value=1, target=1, limit=1, state="ok", since=0)


async def poll(url: str, timeout: float = 60.0, **arguments: str) -> Reading:
    async with TelemetryClient([url], timeout=timeout, **arguments) as client:
        (reading,) = await client.poll()
    return reading


async def test_telemetry_as_messagepack_and_as_json() -> None:
    as_json = answer(msgspec.json.encode(GOOD), kind="application/json; charset=utf-8")
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(
            b"%x\r\n%b\r\n" % (len(p), p) for p in map(bytes, itertools.batched(msgspec.msgpack.encode(GOOD), 9))
        )
        + b"0\r\n\r\n"
        if hasattr(itertools, "batched")
        else answer(msgspec.msgpack.encode(GOOD))
    )
    for data in (answer(msgspec.msgpack.encode(GOOD)), as_json, chunked):
        async with endpoint(says(data)) as url:
            reading = await poll(url)
        assert reading.telemetry == GOOD
        assert reading.connected
        assert not reading.error


def damaged(**changes: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(GOOD, **changes))


def histogram(buckets: bytes, counts: bytes) -> bytes:
    return damaged(stages={"s": Stage("s", Histogram(buckets, counts))})


def named(
    process: str = "engine", stage: str = "s", service: str = "s", figures: str = "s", metric: str = "m"
) -> bytes:
    row = msgspec.structs.replace(METRIC, name=metric)
    return damaged(
        process=process, stages={stage: GOOD.stages["loop_lag"]}, health={service: ("ok", "")},
        stats={figures: {}}, metrics=(row,),
    )  # fmt: skip


def strange_figures() -> Iterator[bytes]:
    """What MessagePack can tell and no screen can show."""
    load = HostLoad(
        cores=(1.0,),
        steal_percent=0,
        load=0,
        memory=1,
        available=1,
        udp_drops=0,
        listen_drops=0,
        socket_queues=None,
    )
    for figure in (math.nan, math.inf, -math.inf, 1e300):
        for field in ("value", "limit", "p99"):
            yield damaged(metrics=(msgspec.structs.replace(METRIC, **{field: figure}),))
        yield damaged(stats={"gateway": {"orders": figure}})
        yield damaged(host=msgspec.structs.replace(load, cores=(figure,)))
    yield damaged(time=2**63)
    yield damaged(stats={"gateway": {"orders": 2**64 - 1}})
    yield damaged(stages={"s": Stage("s", Histogram(b"", b"", maximum=-1))})
    for counts in ((-5,), (5, -3), (2**53,), (2**62, 2**62, 2**62), (2**63 - 1, 3)):
        where = np.arange(len(counts), dtype=np.uint16)
        yield histogram(where.tobytes(), np.array(counts, np.int64).tobytes())


def too_many() -> Iterator[bytes]:
    """What has more in it than any stack."""
    yield damaged(stages={f"s{number}": GOOD.stages["loop_lag"] for number in range(257)})
    yield damaged(metrics=(METRIC,) * 257)
    yield damaged(metrics=(msgspec.structs.replace(METRIC, unit="x" * 11),))
    yield damaged(health={f"s{number}": ("ok", "") for number in range(65)})
    yield damaged(stats={f"s{number}": {} for number in range(65)})
    yield damaged(stats={"s": {f"f{number}": 1 for number in range(1025)}})
    yield damaged(events=(Event(1, 2, "info", "a", "b"),) * 4097)


STRANGE_NAMES = [
    *itertools.product(
        ("process", "stage", "service", "figures", "metric"),
        ("", "/tmp/x", "../../x", "..", ".x", "a\0b", "a\n", "a, b", "\x1b]0;x\x07", "ü", "x" * 400),
    ),
    ("process", "a b"),
    ("stage", "a b"),
]


async def test_names_of_several_words_are_those_of_services_and_metrics() -> None:
    async with endpoint(
        says(answer(named(service="ledger server", figures="ledger server", metric="a b")))
    ) as url:
        assert (await poll(url)).telemetry


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "ended the connection without an answer"),
        (b"\x00\xff\x01garbage\r\n\r\n", "does not speak HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "does not speak HTTP",
        ),
        (answer(b"hello"), "something that is not telemetry"),
        (answer(b""), "something that is not telemetry"),
        (answer(b"[" * 100_000, kind="application/json"), "something that is not telemetry"),
        (answer(b'{"process": 5}', kind="application/json"), "something that is not telemetry"),
        (answer(b"\x91" * 100_000), "something that is not telemetry"),
        (answer(msgspec.msgpack.encode(GOOD)[:-9]), "something that is not telemetry"),
        (answer(histogram(b"\x01", b"")), "something that is not telemetry"),
        (answer(histogram(b"\xff\xff", bytes(8))), "something that is not telemetry"),
        (answer(histogram(b"\x01\x00", bytes(16))), "something that is not telemetry"),
        *((answer(named(**{field: name})), "something that is not telemetry") for field, name in STRANGE_NAMES),
        *((answer(data), "something that is not telemetry") for data in (*strange_figures(), *too_many())),
        (answer(msgspec.json.encode(GOOD).replace(b'"time":3', b'"time":' + b"3" * 400), kind="application/json"),
         "something that is not telemetry"),
        (answer(damaged(schema=99)), "schema 99"),
        (answer(b"x" * 100)[:-50], "broke off in the middle"),
        (answer(b"", "401 Unauthorized"), "needs an API key; set a valid one in $TVOPS_API_KEY"),
        (answer(b"", "403 Forbidden"), "needs an API key"),
        (answer(b"", "404 Not Found"), "has no /telemetry"),
        (answer(b"", "500 Internal Server Error"), "status 500"),
        (answer(b"", "302 Found", headers="Location: http://e.example/\x9b31m\r\n"), "redirects to 'http://e.example/"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * (MAX_ANSWER_BYTES // 8), "answers with more than 8 MiB"),
        (answer(bytes(MAX_ANSWER_BYTES)), "answers with more than 8 MiB"),
    ],
)  # fmt: skip
async def test_what_is_no_telemetry_is_told(data: bytes, error: str) -> None:
    async with endpoint(says(data)) as url:
        reading = await poll(url)
    assert reading.telemetry is None
    assert error in reading.error
    assert reading.error.isprintable()
    assert reading.connected


async def test_an_endless_answer_ends() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()

    async with endpoint(endless) as url:
        assert "more than 8 MiB" in (await poll(url)).error


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in itertools.cycle(b"HTTP/1.1 200 OK\r\nX: "):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("handler", [drip, silent])
async def test_a_slow_endpoint_costs_no_more_than_the_timeout(handler: Handler) -> None:
    async with endpoint(handler) as url:
        while not (reading := await poll(url, timeout=0.3)).connected:
            pass  # this host had no time for it
    assert reading.error == "does not answer within 0.3 s"


async def test_nobody_is_there() -> None:
    reading = await poll(f"http://127.0.0.1:{free_port()}")
    assert (reading.error, reading.connected) == ("connection refused", False)


async def test_a_listener_that_never_accepts() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        while not (reading := await poll(url, timeout=0.3)).connected:
            pass  # this host had no time for it
    assert reading.error == "does not answer within 0.3 s"


async def test_a_host_that_is_none_and_tls_where_there_is_none() -> None:
    assert (await poll("http://no-such-host.invalid:8000")).error

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with endpoint(plain) as url:
        assert (await poll(url.replace("http:", "https:"))).error.startswith("TLS: ")


async def test_one_dead_endpoint_keeps_no_other_waiting() -> None:
    answered = asyncio.Event()

    async def healthy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(answer(msgspec.msgpack.encode(GOOD)))(reader, writer)
        answered.set()

    async def silent_for_longer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answered.wait()
        await asyncio.sleep(0.1)

    async with (
        endpoint(healthy) as good,
        endpoint(silent_for_longer) as bad,
        TelemetryClient([bad, good, bad.replace("127.0.0.1", "127.0.0.2")], timeout=60.0) as client,
    ):
        readings = await client.poll()
    assert [reading.url for reading in readings][:2] == [bad, good]
    assert [bool(reading.telemetry) for reading in readings] == [False, True, False]
    assert readings[1].received < readings[0].received


async def test_connections_are_kept_and_made_anew() -> None:
    connections = itertools.count(1)
    seen = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(connections)
        for _ in range(3):  # then it lets go, as a server does with idle connections
            request = await reader.readuntil(b"\r\n\r\n")
            seen.append((number, request))
            writer.write(answer(msgspec.msgpack.encode(GOOD)))
            await writer.drain()

    async with endpoint(handler) as url, TelemetryClient([url], api_key="k.s", timeout=60.0) as client:
        for _ in range(7):
            (reading,) = await client.poll()
            assert reading.telemetry == GOOD, reading.error
            await asyncio.sleep(0.02)
    assert [number for number, _ in seen] == [1, 1, 1, 2, 2, 2, 3]
    assert all(b"\r\nX-API-Key: k.s\r\n" in request for _, request in seen)
    assert all(request.startswith(b"GET /telemetry HTTP/1.1\r\n") for _, request in seen)


def served(number: int, headers: str = "") -> bytes:
    return answer(msgspec.msgpack.encode(msgspec.structs.replace(GOOD, pid=number)), headers=headers)


@pytest.mark.parametrize(
    ("with_it", "after_it"),
    [
        (served(99), b""),
        (b"garbage", b""),
        (b"", served(99)),
        (b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    ],
)
async def test_what_follows_an_answer_is_not_the_next_one(with_it: bytes, after_it: bytes) -> None:
    numbers, sent = itertools.count(1), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(served(next(numbers)) + with_it)
            await asyncio.sleep(0.01)
            writer.write(after_it)
            sent.set()

    async with endpoint(handler) as url, TelemetryClient([url], timeout=60.0) as client:
        for number in (1, 2, 3):
            (reading,) = await client.poll()
            assert reading.telemetry, reading.error
            assert reading.telemetry.pid == number
            await sent.wait()
            sent.clear()
            await asyncio.sleep(0.01)  # it comes to the client


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"]
)
async def test_an_interim_answer_is_not_the_answer(interim: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in (interim, interim + served(5)):
            writer.write(piece)
            await asyncio.sleep(0.01)

    async with endpoint(handler) as url:
        reading = await poll(url)
    assert reading.telemetry, reading.error
    assert reading.telemetry.pid == 5
    async with endpoint(says(interim)) as url:
        assert (await poll(url)).error == "broke off in the middle of its answer"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_without_a_length_ends_with_the_connection(version: str) -> None:
    head = f"HTTP/{version} 200 OK\r\nContent-Type: application/msgpack\r\n\r\n".encode()
    async with endpoint(says(head + msgspec.msgpack.encode(GOOD))) as url:
        assert (await poll(url)).telemetry == GOOD


async def test_it_reconnects_to_an_endpoint_that_was_restarted() -> None:
    good = says(answer(msgspec.msgpack.encode(GOOD)), keep=True)
    async with endpoint(good) as url:
        client = TelemetryClient([url], timeout=60.0)
        assert (await client.poll())[0].telemetry
    assert (await client.poll())[0].error in ("connection refused", "ended the connection without an answer")
    assert (await client.poll())[0].error == "connection refused"
    async with endpoint(good, int(url.rpartition(":")[2])):
        assert (await client.poll())[0].telemetry
        await client.close()


@settings(max_examples=60)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_give_a_reading(data: bytes, with_head: bool) -> None:
    async def inside() -> Reading:
        async with endpoint(says(answer(data) if with_head else data)) as url:
            return await poll(url)

    reading = asyncio.run(inside())
    assert reading.telemetry is None
    assert reading.error


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://localhost", "http://", "http://[::1", "http://h:99999", "http://h:0",
     "http://a b", "http://h\r\nX: y", "http://h/?q=1", "http://h/#f", "http://ü"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no address of a stack"):
        TelemetryClient([url])


def test_secrets_stay_out_of_addresses_and_headers_out_of_keys() -> None:
    with pytest.raises(UsageError, match=r"set the API key in \$TVOPS_API_KEY") as error:
        TelemetryClient(["http://me:hidden@localhost:8000"])
    assert "hidden" not in str(error.value)
    with pytest.raises(UsageError, match="letters that no key has"):
        TelemetryClient(["http://localhost:8000"], "k\r\nHost: evil")


class Hanging:
    """A resolver that hangs for as long as it is not let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answered = 0
        self.released = threading.Event()

    def getaddrinfo(self, host: str, *about: Any, **more: Any) -> Any:
        self.asked.append(host)
        self.released.wait(100)
        self.answered += 1
        raise socket.gaierror(socket.EAI_AGAIN, "")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    resolver = Hanging()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.released.set()


def test_nobody_waits_for_a_resolver_that_hangs(hanging: Hanging) -> None:
    async def polls() -> list[Reading]:
        async with TelemetryClient(["http://hangs.invalid:1"], timeout=0.02) as client:
            return [(await client.poll())[0] for _ in range(9)]

    readings = asyncio.run(polls())
    while not hanging.asked:  # its thread may not have come that far
        time.sleep(0.01)
    assert hanging.answered == 0
    assert hanging.asked == ["hangs.invalid"]
    assert {reading.error for reading in readings} == {"has a name that is not resolved within 0.02 s"}
    assert not any(reading.connected for reading in readings)


def test_top_ends_while_a_resolver_hangs(hanging: Hanging) -> None:
    sampler = Sampler(["http://hangs.invalid:1"], "", 20.0)
    sampler.wanted = ("http://hangs.invalid:1", "")
    sampler.start()
    while len(hanging.asked) < 2:  # for telemetry and for a book
        time.sleep(0.01)
    sampler.stop()
    assert hanging.answered == 0


async def test_what_a_resolver_says_late_is_heard(hanging: Hanging) -> None:
    async with TelemetryClient(["http://late.invalid:1"], timeout=0.02) as client:
        assert (await client.poll())[0].error == "has a name that is not resolved within 0.02 s"
        hanging.released.set()
        while (error := (await client.poll())[0].error).endswith("0.02 s"):
            pass
    assert error == "has a name that cannot be resolved now"
    assert hanging.asked == ["late.invalid"]


async def test_a_literal_address_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", None)
    for host in ("127.0.0.1", "[::1]"):
        assert "refused" in (await poll(f"http://{host}:{free_port()}")).error


async def test_a_name_with_several_addresses_is_one_where_any_of_them_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def getaddrinfo(host: str, port: int, **more: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with endpoint(says(answer(msgspec.msgpack.encode(GOOD)))) as url:
        named = url.replace("127.0.0.1", "stack.invalid")
        found = ["127.0.0.2", "127.0.0.1"]
        assert (await poll(named)).telemetry == GOOD
        found = ["127.0.0.2", "127.0.0.3"]
        assert (await poll(named)).error == "connection refused"


async def test_an_address_that_hangs_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **more: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr("tvops.dialing._HEAD_START", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with endpoint(says(answer(msgspec.msgpack.encode(GOOD)))) as url:
        port = int(url.rpartition(":")[2])
        with ExitStack() as opened:
            full = opened.enter_context(socket.socket())
            full.bind(("127.0.0.2", port))
            full.listen(0)
            for _ in range(3):  # then its queue takes no more, and who comes is left without an answer
                filler = opened.enter_context(socket.socket())
                filler.setblocking(False)
                with suppress(BlockingIOError):
                    filler.connect(("127.0.0.2", port))
            tasks = asyncio.all_tasks()
            for _ in range(3):
                assert (await poll(f"http://stack.invalid:{port}")).telemetry == GOOD
            await asyncio.sleep(0.01)
            assert not [task for task in asyncio.all_tasks() - tasks if "_connected" in repr(task)]
            gc.collect()  # a socket that was left open would be told of as a warning, which is an error here


async def test_a_name_that_is_none_is_no_host() -> None:
    assert (await poll(f"http://{'x' * 64}.invalid:1")).error == "there is no such host"


async def test_what_a_refused_answer_was_is_let_go_of_at_once() -> None:
    """An answer has megabytes: those that only a collection finds would be many at a time."""
    async with endpoint(says(answer(bytes(100)))) as url:
        gc.collect()
        gc.disable()
        try:
            assert (await poll(url)).error
            assert not [each for each in gc.get_objects() if type(each) is http_endpoint._Answer]
        finally:
            gc.enable()
