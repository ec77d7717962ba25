"""Takes the snapshots of a running engine and trims the ledger behind them."""

from __future__ import annotations

import asyncio
import logging
import time

from redis.exceptions import RedisError

from tvops.engine.ledger.ledger import Ledger
from tvops.engine.ledger.snapshots import KEPT, SnapshotStore
from tvops.engine.ledger.state import CapturedState, TradingState
from tvops.errors import LedgerError

RETRY_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Snapshotter:
    """Writes a snapshot every ``every`` commands.

    Only the copy of the state is made in the event loop; a thread compresses it. While one snapshot is being
    written no other begins. If one cannot be written, `trouble` says why, nothing is trimmed, and it is tried
    again a little later.
    """

    def __init__(
        self, ledger: Ledger, store: SnapshotStore, state: TradingState, every: int, good: list[int]
    ) -> None:
        """Go on from the snapshots after the seqs ``good``, newest first."""
        self.trouble = ""
        self.bytes = 0  # of the last snapshot
        self.stall = 0  # ns that copying for the last snapshot took
        self._ledger = ledger
        self._store = store
        self._state = state
        self._every = every
        self._good = good[:KEPT]
        self._not_before = 0.0  # monotonic time of the next try
        self._task: asyncio.Task[None] | None = None

    @property
    def seq(self) -> int:
        """The last command of the newest snapshot; 0: there is none."""
        return self._good[0] if self._good else 0

    def after_batch(self) -> None:
        """Begin a snapshot if it is time; called after every batch."""
        if self._state.seq - self.seq < self._every or (self._task and not self._task.done()):
            return
        if time.monotonic() < self._not_before:
            return
        self._task = asyncio.create_task(self._write(self._capture()), name="snapshot")

    async def finish(self, seconds: float) -> None:
        """Write a last snapshot, in up to ``seconds``, once the sequencer has stopped."""
        try:
            async with asyncio.timeout(seconds):
                if self._task:
                    await self._task
                if self._state.seq > self.seq:
                    await self._write(self._capture())
        except TimeoutError:
            logger.warning("no time for a last snapshot: the next start replays from seq %d", self.seq)

    def _capture(self) -> CapturedState:
        begun = time.perf_counter_ns()
        captured = self._state.capture()
        self.stall = time.perf_counter_ns() - begun
        return captured

    async def _write(self, captured: CapturedState) -> None:
        outcome = "not written"
        try:
            blob = await asyncio.to_thread(captured.encode)
            await self._store.write(captured.seq, blob)
            self._good = [captured.seq, *self._good][:KEPT]
            outcome = "written, what it replaces not removed"
            await self._store.keep(self._good)
            if len(self._good) == KEPT:
                await self._ledger.trim(self._good[-1] + 1)
        except (RedisError, LedgerError, OSError) as error:
            self.trouble = f"snapshot of seq {captured.seq} {outcome}: {error}"
            logger.error("%s", self.trouble)
            self._not_before = time.monotonic() + RETRY_SECONDS
            return
        self.bytes, self.trouble = len(blob), ""
