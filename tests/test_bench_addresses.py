"""Addresses of a stack, and ports that are none."""

from __future__ import annotations

import socket
import threading

import pytest

from tvops.bench.addresses import address_of, fetch_json
from tvops.errors import ServerError, UsageError


@pytest.mark.parametrize(
    "url", ["", "foo", "ftp://x", "http://", "http://[::1", "http://x:99999", "http://x/a", "http://x:y"]
)
def test_what_is_no_address_is_told_in_one_line(url: str) -> None:
    with pytest.raises(UsageError, match="is no address of a stack") as caught:
        address_of(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"\x00\xff\r\n!>garbage\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", "answers no JSON"),
        (b"HTTP/1.1 abc\r\n\r\n", "does not speak HTTP"),
    ],
)
def test_a_port_that_answers_garbage_is_told_in_one_line(answer: bytes, told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ServerError) as caught:
            fetch_json(url, "/stats", timeout=5)
        thread.join()
    assert str(caught.value).startswith(f"{url}/stats: {told}")
