"""Takes the commands of the liquidity accounts out of `inbox:{0}`, from now on, at most once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from tvops.engine.bus.packing import PackingError, unpack
from tvops.engine.ledger.sequencer import MAX_BATCH, Sequencer
from tvops.engine.records import FIRST_USER_ACCOUNT, Kind, RecordType
from tvops.errors import LedgerError

INBOX = "inbox:{0}"
GROUP = "engine"
"""Consumer group of the inbox: an entry goes to one engine only, and XINFO GROUPS tells how far that is behind."""

_KINDS = (Kind.NEW, Kind.AMEND, Kind.CANCEL, Kind.MASS_CANCEL)
_RETRY_SECONDS = 0.1
_ENTRIES = 16  # taken at once

logger = logging.getLogger(__name__)


class Inbox:
    """Reads entries, drops what liquidity accounts may not send, and submits the rest in order."""

    def __init__(self, client: Redis, sequencer: Sequencer, block_seconds: float) -> None:
        """Read with ``client``, waiting up to ``block_seconds``, less than its socket timeout, on the server."""
        self.trouble = ""
        self.commands = 0
        self.refused = 0  # commands that were dropped
        self.damaged = 0  # entries that could not be read
        self._client: Any = client
        self._sequencer = sequencer
        self._block_ms = max(1, int(block_seconds * 1000))
        self._opened = False

    async def open(self) -> None:
        """Have the group begin where the inbox ends: what comes behind that is taken.

        Raises:
            RedisError: the server is away or refuses; `run` tries again.
        """
        if not await self._join("$"):
            await self._client.xgroup_setid(INBOX, GROUP, "$")
        self._opened = True

    async def _join(self, start: str) -> bool:
        """Make the group, and the inbox if there is none; false where there is one already."""
        try:
            await self._client.xgroup_create(INBOX, GROUP, start, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
            return False
        return True

    async def _read(self) -> Any:
        try:
            return await self._client.xreadgroup(
                GROUP, GROUP, {INBOX: ">"}, count=_ENTRIES, block=self._block_ms, noack=True
            )
        except ResponseError as error:
            if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                raise
            await self._join("0")  # the server has lost the inbox: all that is there now came afterwards
            return []

    async def run(self) -> None:
        """Read until the sequencer stops, also over restarts of the server."""
        while True:
            try:
                if not self._opened:
                    await self.open()
                found = await self._read()
            except (RedisError, OSError) as error:
                if not self.trouble:
                    logger.warning("the inbox cannot be read, trying again: %s", error)
                self.trouble = str(error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self.trouble = ""
            for _, fields in found[0][1] if found else ():
                try:
                    await self._take(fields.get(b"p", b""))
                except LedgerError:
                    return  # the engine has stopped; its health says why

    async def _take(self, blob: bytes) -> None:
        try:
            record_type, rows = unpack(blob)
        except PackingError as error:
            self._refuse_entry(str(error))
            return
        if record_type != RecordType.COMMAND:
            self._refuse_entry(f"holds {record_type.name} rows")
            return
        allowed = rows[allowed_rows(rows)]
        self.refused += len(rows) - len(allowed)
        for start in range(0, len(allowed), MAX_BATCH):
            part = allowed[start : start + MAX_BATCH]
            await self._sequencer.room(len(part))
            self._sequencer.submit(part)
            self.commands += len(part)

    def _refuse_entry(self, why: str) -> None:
        if not self.damaged:
            logger.error("an entry of the inbox is passed over: %s", why)
        self.damaged += 1


def allowed_rows(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which COMMAND rows a liquidity account may send: its orders, without idempotency keys."""
    account = rows["account"]
    allowed: NDArray[np.bool_] = (account > 0) & (account < FIRST_USER_ACCOUNT) & (rows["key_high"] == 0)
    return allowed & np.isin(rows["kind"], _KINDS)
