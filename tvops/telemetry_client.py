"""Reads the telemetry of running stacks: any number of ports, local or remote, whatever state they are in.

Whatever an endpoint does (nothing at all, garbage, one byte a second, an endless answer, a redirection) ends in
a `Reading` that says what is wrong.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from tvops.engine.telemetry.document import SCHEMA, Telemetry
from tvops.http_endpoint import Content, Endpoint, EndpointError

PATH = "/telemetry"
MAX_ANSWER_BYTES = 8 << 20
_WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_WORDS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,99}")

_decoder = msgspec.msgpack.Decoder(Telemetry)
_json_decoder = msgspec.json.Decoder(Telemetry)


class Reading(NamedTuple):
    """What one poll of one endpoint gave."""

    url: str
    telemetry: Telemetry | None
    error: str  # one plain sentence; empty where there is telemetry
    received: int  # monotonic ns, when the poll ended
    connected: bool  # whether somebody took the connection


class TelemetryClient:
    """Polls the telemetry ports of one or several stacks."""

    def __init__(self, urls: Sequence[str], api_key: str = "", timeout: float = 2.0) -> None:
        """Read from ``urls``.

        Args:
            urls: ``http://HOST:PORT`` or ``https://…`` of gateway and market data ports.
            api_key: sent to each of them, if any.
            timeout: seconds that a poll of one endpoint may take in all.

        Raises:
            UsageError: a URL or the key cannot be used.
        """
        self._endpoints = [Endpoint(url, api_key) for url in urls]
        self._timeout = timeout

    async def poll(self) -> list[Reading]:
        """Ask every endpoint once, all at the same time; give a reading of each, in the order of the URLs."""
        return list(await asyncio.gather(*(_read(endpoint, self._timeout) for endpoint in self._endpoints)))

    async def close(self) -> None:
        """Let go of every connection."""
        for endpoint in self._endpoints:
            endpoint.disconnect()

    async def __aenter__(self) -> TelemetryClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


def check_document(document: Telemetry) -> None:
    """Refuse a document whose names no stack gives: they become parts of tables, tags and names of files.

    A process and a stage are one word; services and metrics may have blanks between words, as `ledger server` has.
    Numbers and lengths are bounded by the types of a document already (`tvops.engine.telemetry.bounds`).

    Raises:
        ValueError: a name or a histogram is none.
    """
    for name in (document.process, *document.stages):
        if not _WORD.fullmatch(name):
            raise ValueError("a process or a stage has a name that is none")
    for name in (*document.health, *document.stats, *(metric.name for metric in document.metrics)):
        if not _WORDS.fullmatch(name):
            raise ValueError("a service or a metric has a name that is none")
    for stage in document.stages.values():
        stage.histogram.check()


async def _read(endpoint: Endpoint, timeout: float) -> Reading:
    """Ask an endpoint once; every failure is told in the reading."""
    telemetry, error = None, ""
    try:
        telemetry = _decode(await endpoint.fetch(PATH, "application/msgpack", MAX_ANSWER_BYTES, timeout))
    except EndpointError as failure:
        error = str(failure)
        endpoint.disconnect()
    return Reading(endpoint.url, telemetry, error, time.monotonic_ns(), endpoint.connected)


def _decode(content: Content) -> Telemetry:
    decoder: Any = _json_decoder if content.kind == "application/json" else _decoder
    try:
        telemetry: Telemetry = decoder.decode(content.body)
        check_document(telemetry)
    except Exception:  # noqa: BLE001 - whatever one sends, the polls of the others go on
        raise EndpointError("answers with something that is not telemetry") from None
    if telemetry.schema != SCHEMA:
        raise EndpointError(f"tells telemetry of schema {telemetry.schema}, which this version cannot read")
    return telemetry
