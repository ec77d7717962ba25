"""Addresses of a stack, and ports that are none."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tvops.bench.addresses import address_of, fetch_json
from tvops.bench.stack_figures import StackWatch
from tvops.errors import ServerError, UsageError


@pytest.mark.parametrize(
    "url", ["", "foo", "ftp://x", "http://", "http://[::1", "http://x:99999", "http://x/a", "http://x:y"]
)
def test_what_is_no_address_is_told_in_one_line(url: str) -> None:
    with pytest.raises(UsageError, match="is no address of a stack") as caught:
        address_of(url)
    assert "\n" not in str(caught.value)


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Give the address of a port that answers one request."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"\x00\xff\r\n!>garbage\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", "answers no JSON"),
        (b"HTTP/1.1 abc\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 10_000, "answers no JSON"),
    ],
)
def test_a_port_that_answers_garbage_is_told_in_one_line(answer: bytes, told: str) -> None:
    with answering(answer) as url, pytest.raises(ServerError) as caught:
        fetch_json(url, "/stats", timeout=60)
    assert str(caught.value).startswith(f"{url}/stats: {told}")


def test_a_key_goes_to_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        elsewhere = f"http://127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", elsewhere)
        redirection = f"HTTP/1.1 302 Found\r\nlocation: {elsewhere}/x\x07\r\ncontent-length: 0\r\n\r\n"
        with answering(redirection.encode()) as url, pytest.raises(ServerError) as caught:
            fetch_json(url, "/stats", "secret", timeout=60)
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.accept()
    told = f"redirects to '{elsewhere}/x?'; give that address if it is the right one"
    assert str(caught.value) == f"{url}/stats: {told}"


async def test_nobody_waits_at_the_end_for_a_request_that_hangs() -> None:
    asked, hanging = asyncio.Event(), asyncio.Event()
    answered = list[asyncio.Task[None] | None]()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.append(asyncio.current_task())
        if b"/stats" in await reader.readline():
            asked.set()
            await hanging.wait()
        writer.close()
        await writer.wait_closed()

    before = set(threading.enumerate())
    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with StackWatch([url], "") as watch:
            figures = asyncio.create_task(watch.figures())
            await asked.wait()
            assert all(thread.daemon for thread in set(threading.enumerate()) - before)
            figures.cancel()
        hanging.set()
        await asyncio.wait([task for task in answered if task])
