"""How long the servers take to answer: a PING every other second to each, as a stage of its own."""

from __future__ import annotations

import asyncio
import time

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tvops.engine.bus.roles import ROLES, Bus
from tvops.engine.telemetry.stages import ROUND_TRIP, Stages

SECONDS = 1.0
"""How long a server may take; one that does not answer counts with this."""

REST_SECONDS = 2.0
"""Between rounds. A PING by itself costs an idle process some 0.3 ms, nearly all of it for waking up."""


class RoundTrips:
    """Asks the server of every role over the connections that everybody uses."""

    def __init__(self, bus: Bus, stages: Stages) -> None:
        self._clients: dict[str, Redis] = {role: getattr(bus, role) for role in ROLES}
        self._recorders = {role: stages.add(ROUND_TRIP + role) for role in ROLES}

    async def run(self) -> None:
        """Ask all of them, one after the other so that none waits for another's answer to be read, for ever."""
        while True:
            for role in ROLES:
                await self._ask(role)
            await asyncio.sleep(REST_SECONDS)

    async def _ask(self, role: str) -> None:
        begun = time.monotonic_ns()
        try:
            async with asyncio.timeout(SECONDS):
                await self._clients[role].ping()
        except (RedisError, OSError, TimeoutError):
            self._recorders[role].record(max(round(SECONDS * 1e9), time.monotonic_ns() - begun))
        else:
            self._recorders[role].record(time.monotonic_ns() - begun)
