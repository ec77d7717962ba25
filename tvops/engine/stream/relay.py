"""Takes market data from the bus to the sessions."""

from __future__ import annotations

import asyncio
import logging
import time

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tvops.engine.bus.stream_reader import StreamReader
from tvops.engine.bus.streams import Entry
from tvops.engine.services import Health
from tvops.engine.stream.figures import Figures
from tvops.engine.stream.hub import Hub
from tvops.engine.stream.intake import Intake

STREAM = "rts:{0}"
MOST_REST_SECONDS = 0.004
"""Longest rest between two flushes: a wait of every tick, so a part of the 10 ms that ticks may take."""

BLOCK_MS = 1000
RETRY_SECONDS = 0.5

logger = logging.getLogger(__name__)


class Relay:
    """Reads the market stream from its oldest entry on. `health` tells whether it can."""

    def __init__(self, market: Redis, intake: Intake, hub: Hub, figures: Figures) -> None:
        """Read through ``market``, a client of that role; ``hub`` serves what ``intake`` takes."""
        self._reader = StreamReader(market, STREAM, start="oldest")
        self._intake, self._hub, self._figures = intake, hub, figures
        self.health = Health("starting", "has not read the market stream yet")

    async def run(self) -> None:
        """Publish what the bus has, as soon as it has it. While that goes on, the next batch gathers there."""
        failures = self._reader.failures
        while True:
            try:
                entries = await self._reader.read(0 if self.health.state == "starting" else BLOCK_MS)
            except RedisError as error:
                self._degrade(f"the market server refuses: {error}")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self._reader.failures != failures:
                failures = self._reader.failures
                self._degrade("the market server is away")
                continue
            begun = time.thread_time()
            records = self._publish(entries)
            if self.health.state != "ok":
                logger.info("market data is read")
                self.health = Health("ok")
            await asyncio.sleep(0)  # uvloop writes to the sockets now
            if records:
                self._figures.sent(records, [major for major, _, _ in entries])
            self._figures.pending = 0
            # Sends cost, not ticks: what gathers while we rest goes out together, so that some sessions never take
            # more than a third of the core, and hundreds get what they want of it within their target. The time
            # on the core counts, so that a neighbour who has it in between does not make the rests longer.
            await asyncio.sleep(min(2 * (time.thread_time() - begun), MOST_REST_SECONDS))

    def _publish(self, entries: list[Entry]) -> int:
        """Hand entries to the sessions; give how many records that were, 0 where nobody wanted any."""
        intake = self._intake
        before = intake.records
        updates = []
        if self._reader.gap:
            self._reader.gap = False
            logger.warning("market data was lost before it could be read; books wait for their next snapshot")
            updates = intake.interrupt()
        updates += intake.take(blob for _, _, blob in entries)
        if entries:
            self._figures.taken(intake.ticks, entries[0][0])
        self._figures.pending = intake.records - before
        wanted = self._hub.publish(updates, time.time_ns())
        return intake.records - before if wanted else 0

    def _degrade(self, detail: str) -> None:
        if self.health.state != "degraded":
            logger.warning("%s", detail)
        self.health = Health("degraded", detail)
