"""A service that keeps orders in our book in lock step: what simulated market and mirror have in common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from typing import Any

from numpy.typing import NDArray

from tvops.engine.bus.roles import Bus
from tvops.engine.market.order_client import OrderClient, UnansweredError
from tvops.engine.market.own_orders import OwnOrders
from tvops.engine.records import EventKind
from tvops.engine.services import Health

RESET_SECONDS = 0.7
"""Until a reset is tried again: an engine that is starting does not see what came before it was up."""

STOP_SECONDS = 1.0
"""How long `stop` tries to cancel what is in the book."""

_RETRY_SECONDS = 0.5
_RATE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class QuotingService(ABC):
    """Sends a batch of commands every interval, and the next one only when all of it is answered.

    Where an answer stays away (the engine or a server was away, or events were lost) it is not known which
    orders are in the book: everything is cancelled and built anew.
    """

    name: str

    def __init__(self, bus: Bus, orders: OwnOrders, interval: float) -> None:
        """Keep ``orders`` in step with the engine, every ``interval`` seconds."""
        self._client = OrderClient(bus, orders.accounts)
        self._orders = orders
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._in_touch = False
        self._trouble = ""
        self._resyncs = 0
        self._rate, self._rate_sent, self._rate_since = 0.0, 0, time.monotonic()

    @abstractmethod
    async def _round(self) -> None:
        """Decide once, by `_orders`, and pass the commands to `_exchange`."""

    def _begin(self) -> None:  # noqa: B027
        """Take notice that none of the own orders is in the book any more."""

    @abstractmethod
    def compile(self) -> None:
        """Call every kernel once with data of no consequence, so that none compiles while prices are live."""

    async def start(self) -> None:
        """Begin to trade as soon as the engine answers."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """End the batch under way and cancel what is in the book, as far as that works within a second."""
        self._stopping.set()
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._task, STOP_SECONDS)
        self._task = None

    def health(self) -> Health:
        """Tell whether the engine answers."""
        if self._task is not None and self._task.done():
            return Health("failed", self._trouble or "ended")
        if self._in_touch:
            return Health("ok")
        return Health("degraded" if self._resyncs else "starting", self._trouble or "waiting for the engine")

    def stats(self) -> dict[str, float | int | str]:
        """Give commands per second, orders in the book, and counts since the start."""
        counts = self._orders.counts
        now = time.monotonic()
        if now - self._rate_since >= _RATE_SECONDS:
            self._rate = (self._client.sent - self._rate_sent) / (now - self._rate_since)
            self._rate_sent, self._rate_since = self._client.sent, now
        return {
            "commands": self._client.sent,
            "commands_per_second": round(self._rate, 1),
            "live_orders": self._orders.live,
            "fills": int(counts[EventKind.MAKER_FILL] + counts[EventKind.TAKER_FILL]),
            "rejected": int(counts[EventKind.REJECTED]),
            "resyncs": self._resyncs,
        }

    async def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    await self._trade()
                except UnansweredError as error:
                    self._lose_touch(str(error))
                    await self._pause(_RETRY_SECONDS)
            with contextlib.suppress(UnansweredError):
                await self._client.reset(STOP_SECONDS)
        except Exception as error:
            self._trouble = f"failed: {error}"
            logger.exception("%s failed and trades no more", self.name)
            with contextlib.suppress(UnansweredError):
                await self._client.reset(STOP_SECONDS)

    async def _trade(self) -> None:
        self._orders.follow(await self._client.reset(RESET_SECONDS))
        self._orders.forget()
        self._begin()
        if self._resyncs:
            logger.info("%s: the engine answers again", self.name)
        self._in_touch, self._trouble = True, ""
        due = time.monotonic()
        while not self._stopping.is_set():
            await self._round()
            due = max(due + self._interval, time.monotonic())
            await self._pause(due - time.monotonic())

    async def _exchange(self, commands: NDArray[Any]) -> None:
        """Send COMMAND rows and follow what became of them."""
        strays = self._orders.strays
        self._orders.follow(await self._client.step(commands))
        if self._orders.strays != strays:
            raise UnansweredError("an order is in the book that was not sent")

    def _lose_touch(self, trouble: str) -> None:
        if self._in_touch:
            logger.warning("%s starts afresh: %s", self.name, trouble)
            self._resyncs += 1
        self._in_touch, self._trouble = False, trouble

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
