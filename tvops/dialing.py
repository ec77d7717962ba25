"""Connections to a host with several addresses, of which some may be dead or hang."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any, Final

Address = tuple[Any, ...]
"""As `socket.getaddrinfo` gives it: family, kind, protocol, name, address."""

_HEAD_START: Final = 0.25
"""Seconds that an address has before the next one is tried too (RFC 8305, section 5)."""


def is_literal(host: str) -> bool:
    """Whether a host is an address, so that nobody has to be asked for it; one with a zone (%) needs a look."""
    with contextlib.suppress(ValueError):
        return "%" not in host and bool(ipaddress.ip_address(host))
    return False


def look_up(host: str, port: int) -> list[Address] | Exception:
    """Give the addresses of a host, or what hinders that: nobody may be left to catch it."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failure:
        return failure


async def dial(addresses: Sequence[Address]) -> socket.socket:
    """Connect to the first address that takes it.

    They are tried in their order: the next one where one refuses, and beside it where one does not answer at once.

    Raises:
        OSError: none takes it; that of the last one to refuse.
    """
    failure = OSError()
    left, attempts = list(addresses), set[asyncio.Task[socket.socket]]()
    pending = set[asyncio.Task[socket.socket]]()
    try:
        while left or pending:
            if left:
                pending.add(asyncio.create_task(_connected(left.pop(0))))
                attempts |= pending
            done, pending = await asyncio.wait(
                pending, timeout=_HEAD_START if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                try:
                    connection = attempt.result()
                except OSError as refused:
                    failure = refused
                else:
                    attempts.discard(attempt)
                    return connection
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_let_go)
    raise failure


async def _connected(where: Address) -> socket.socket:
    family, kind, protocol, _, address = where
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


def _let_go(attempt: asyncio.Task[socket.socket]) -> None:
    """Close the connection of an attempt that was not needed any more, if it came to one."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
