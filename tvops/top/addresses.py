"""Which ports are watched: what stands on the command line, as stacks with their URLs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from tvops.errors import UsageError


class Stack(NamedTuple):
    """One stack: the ports that belong together."""

    name: str
    urls: tuple[str, ...]


def find_stacks(
    given: Sequence[str], gateway: str | None, market: str | None, gateway_port: int, market_port: int
) -> tuple[Stack, ...]:
    """Give the stacks to watch.

    Args:
        given: each a host (its two default ports), a URL with a port, or several URLs joined by commas.
        gateway: URL of the gateway of one more stack.
        market: URL of its market data port.
        gateway_port: default port of a gateway.
        market_port: default port of market data.

    Raises:
        UsageError: something is no address.
    """
    stacks = [_stack(text.split(","), (gateway_port, market_port)) for text in given]
    if gateway or market:
        stacks.insert(0, _stack([url for url in (gateway, market) if url], ()))
    if not stacks:
        stacks = [_stack(["127.0.0.1"], (gateway_port, market_port))]
    seen: set[str] = set()
    for stack in stacks:
        for url in stack.urls:
            if url in seen:
                raise UsageError(f"{url}: is given twice; name each port once")
            seen.add(url)
    return tuple(stacks)


def _stack(texts: Sequence[str], ports: tuple[int, ...]) -> Stack:
    urls: list[str] = []
    for text in texts:
        url = urlsplit(text if "://" in text else f"http://{text}")
        try:
            port = url.port
        except ValueError:
            port = -1
        if url.scheme not in ("http", "https") or not url.hostname or port == -1 or url.path not in ("", "/"):
            raise UsageError(f"{text!r}: is no address; give a host, or a URL such as http://127.0.0.1:8000")
        if url.username or url.password:
            raise UsageError("an address holds a password; set TVOPS_API_KEY instead")
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        numbers = (port,) if port or not ports else ports
        urls += [f"{url.scheme}://{host}:{number}" if number else f"{url.scheme}://{host}" for number in numbers]
    first = urlsplit(urls[0])
    same_host = all(urlsplit(url).hostname == first.hostname for url in urls)
    ports_text = ",".join(str(urlsplit(url).port or "") for url in urls) if same_host else str(first.port or "")
    return Stack(f"{first.hostname}:{ports_text}".rstrip(":,"), tuple(urls))
