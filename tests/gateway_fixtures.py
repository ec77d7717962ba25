"""A gateway on a real engine and real servers, in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import websockets

from tests.stack import free_port
from tvops.engine.bus.roles import Bus
from tvops.engine.gateway.service import GatewayService
from tvops.engine.instruments import load_instruments
from tvops.engine.ledger.service import EngineService
from tvops.engine.socket_tuning import SocketOptions
from tvops.settings import Settings

TABLE = load_instruments()


class Running:
    """A gateway, and ways to talk to it."""

    def __init__(self, service: GatewayService, engine: EngineService, settings: Settings) -> None:
        self.service, self.engine, self.settings = service, engine, settings
        self.port = settings.gateway_port
        # verify: reading the certificates that plain HTTP has no use for takes 40 ms
        self.client = httpx.AsyncClient(base_url=f"http://localhost:{self.port}", timeout=60, verify=False)

    async def order(self, client: httpx.AsyncClient | None = None, **fields: Any) -> httpx.Response:
        """POST an order that rests, unless ``fields`` say otherwise; None leaves a field out."""
        body = {"symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "quantity": "0.01", "price": "100"}
        body = {key: value for key, value in {**body, **fields}.items() if value is not None}
        return await (client or self.client).post("/v1/orders", json=body)

    async def raw(
        self, data: bytes | list[bytes], answered: Callable[[bytes], bool] = lambda received: False
    ) -> bytes:
        """Send bytes on a connection of their own; give what comes back until it ends.

        Where it does not end: until ``answered`` of what came is true, and then nothing more comes.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received = b""
        try:
            for piece in [data] if isinstance(data, bytes) else data:
                writer.write(piece)
                await asyncio.sleep(0.01)
            while True:
                piece = await asyncio.wait_for(reader.read(1 << 16), 0.2 if answered(received) else 60)
                if not piece:
                    return received + b"<END>"
                received += piece
        except TimeoutError:
            return received
        except ConnectionError:
            return received + b"<RESET>"
        finally:
            writer.close()

    @asynccontextmanager
    async def socket(self, **arguments: Any) -> AsyncIterator[Client]:
        """Open a WebSocket session."""
        async with websockets.connect(f"ws://localhost:{self.port}/ws", **arguments) as connection:
            yield Client(connection)


class Client:
    """A WebSocket client that keeps answers and events apart."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and give its answer; events that come meanwhile are kept."""
        await self.connection.send(json.dumps(request))
        while True:
            message = await self.receive()
            if "op" in message or message["type"] in ("snapshot", "resumed"):
                return message
            self.events.append(message)

    async def receive(self) -> dict[str, Any]:
        """Give the next message."""
        return dict(json.loads(await asyncio.wait_for(self.connection.recv(), 60)))

    async def event(self) -> dict[str, Any]:
        """Give the next event."""
        return self.events.pop(0) if self.events else await self.receive()


@asynccontextmanager
async def running_gateway(
    bus: Bus, options: SocketOptions | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """Run engine and gateway on free ports."""
    chosen = Settings(gateway_port=free_port(), market_port=free_port(), **settings)
    engine = EngineService(chosen, bus, TABLE)
    service = GatewayService(chosen, bus, engine, options)
    await engine.start()
    running = Running(service, engine, chosen)
    try:
        await service.start()
        yield running
    finally:
        await running.client.aclose()
        await service.stop()
        await engine.stop()
