"""The HTTP server: uvicorn, run inside our loop and without its signal handlers, on a socket that we bind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import socket
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any, cast

import uvicorn

from tvops.engine.gateway.calls import Answer
from tvops.engine.gateway.guard import Guard
from tvops.engine.gateway.protocol import IDLE_SECONDS, GatewayProtocol
from tvops.engine.gateway.routes import ROUTES, Handler, Router
from tvops.engine.gateway.sessions import Sessions
from tvops.engine.socket_tuning import SocketOptions
from tvops.errors import HeldError, TvopsError, UsageError
from tvops.settings import Settings

MAX_CONNECTIONS = 2000
STOP_SECONDS = 2
_BACKLOG = 1024
_PREFLIGHT = (
    b"access-control-allow-methods: GET, POST, PUT, PATCH, DELETE\r\n"
    b"access-control-allow-headers: content-type, x-api-key, authorization\r\n"
    b"access-control-max-age: 600\r\n"
)


class Gateway:
    """What every connection needs to know."""

    max_connections = MAX_CONNECTIONS
    preflight = Answer(204, b"", _PREFLIGHT)

    def __init__(self, guard: Guard, sessions: Sessions, api: object, options: SocketOptions) -> None:
        self.guard = guard
        self.options = options
        self.sessions = sessions
        self.router = Router()
        self.handlers: dict[str, Handler] = {route.handler: getattr(api, route.handler) for route in ROUTES}
        self.common_headers = b""
        self.refresh()

    def refresh(self) -> None:
        """Renew the Date header; to be called once a second."""
        date = formatdate(usegmt=True).encode()
        self.common_headers = b"date: %b\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n" % date


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process that hosts us."""
        yield


class HttpServer:
    """Listens on the gateway port."""

    def __init__(self, gateway: Gateway, pages: Any) -> None:
        config = uvicorn.Config(
            pages,
            http=cast(Any, functools.partial(GatewayProtocol, gateway)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(IDLE_SECONDS),
            timeout_graceful_shutdown=STOP_SECONDS,
            backlog=_BACKLOG,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        self._options = gateway.options
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def connections(self) -> list[GatewayProtocol]:
        """The open HTTP connections."""
        return cast(list[GatewayProtocol], list(self._server.server_state.connections))

    @property
    def requests(self) -> int:
        """HTTP requests answered."""
        return self._server.server_state.total_requests

    @property
    def running(self) -> bool:
        """Whether the server takes connections."""
        return self._task is not None and not self._task.done() and not self._server.should_exit

    async def start(self, settings: Settings) -> None:
        """Listen.

        Raises:
            HeldError: the port is taken.
            UsageError: the host is no address of this machine.
        """
        listener = _bind(settings.host, settings.gateway_port, self._options)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="gateway server")
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise TvopsError("the gateway server ended while it started")
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Take no new connections, let those that are answered finish, and close all."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def _bind(host: str, port: int, options: SocketOptions) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"host {host!r}: is no address: {error.strerror}") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        options.prepare(listener)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            text = f"gateway_port {port}: {host}:{port} is in use; choose another one with --gateway-port"
            raise HeldError(text) from None
        raise UsageError(f"host {host!r}: cannot listen on port {port}: {error.strerror}") from None
    return listener
