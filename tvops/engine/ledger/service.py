"""The engine as a service: recovery, sequencer, projections, publishers and inbox, wired together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tvops.engine.bus.roles import Bus
from tvops.engine.bus.stream_writer import StreamWriter
from tvops.engine.instruments import InstrumentTable
from tvops.engine.ledger.inbox import Inbox
from tvops.engine.ledger.ledger import Ledger
from tvops.engine.ledger.order_state import OrderStatePublisher
from tvops.engine.ledger.own_market import OwnMarketPublisher
from tvops.engine.ledger.recovery import Recovery, recover
from tvops.engine.ledger.results import ResultsPublisher
from tvops.engine.ledger.sequencer import Sequencer
from tvops.engine.ledger.setup import setup_commands
from tvops.engine.ledger.snapshots import Snapshot, SnapshotStore
from tvops.engine.ledger.snapshotter import Snapshotter
from tvops.engine.ledger.state import TradingState
from tvops.engine.market.publisher import Publisher
from tvops.engine.matching.engine import Engine
from tvops.engine.projections.orders import OrderTable
from tvops.engine.records import COMMAND, FIRST_USER_ACCOUNT, EventKind, Reason
from tvops.engine.services import Health, end_tasks
from tvops.engine.telemetry.recorder import milliseconds
from tvops.engine.telemetry.stages import Stages
from tvops.errors import LedgerError, RefusedError
from tvops.settings import Settings

COMMANDS_PER_SEGMENT = 1 << 16
WRITE_SECONDS, SNAPSHOT_SECONDS, FLUSH_SECONDS = 1.2, 1.2, 0.4
"""What a stop gives to the commands that wait, to the last snapshot, and to the streams."""

PATIENCE_SECONDS = 3.0
"""How long commands are taken while the ledger does not answer; they wait for it."""

logger = logging.getLogger(__name__)


class EngineService:
    """The engine of shard 0. `engine`, `sequencer` and `orders` are there once it has started."""

    name = "engine"

    def __init__(self, settings: Settings, bus: Bus, table: InstrumentTable, stages: Stages | None = None) -> None:
        self.table = table
        self.ready = False
        self.engine: Engine
        self.orders: OrderTable
        self.sequencer: Sequencer
        self._settings = settings
        self._stages = stages or Stages()
        self._bus = bus
        self._ledger = Ledger(bus.ledger)
        self._store = SnapshotStore(bus.ledger)
        self._state: TradingState
        self._snapshotter: Snapshotter
        self._results: ResultsPublisher
        self._order_state: OrderStatePublisher
        self._changes: StreamWriter
        self._own: OwnMarketPublisher
        self._inbox: Inbox
        self._recovery: Recovery
        self._tasks: list[asyncio.Task[None]] = []
        self._broken = ""
        self._running = False
        self._rate = (time.monotonic(), 0, 0.0)  # when, commands then, commands per second before

    def compile(self) -> None:
        """Load the kernels that recovery, the first requests and the first snapshot would otherwise wait for."""
        state = TradingState(1)
        own = self._own_market(state)
        own.add(state.apply(np.ones(1, COMMAND)))
        own.gather(True)
        state.orders.select(FIRST_USER_ACCOUNT, limit=1)
        state.orders.executions(FIRST_USER_ACCOUNT, limit=1)
        state.orders.row(1)
        captured = Snapshot.decode(state.capture().encode())
        TradingState(1).restore(captured)

    async def start(self) -> None:
        """Recover from the ledger, bring it in line with the settings, and begin to take commands.

        Raises:
            LedgerError: the ledger cannot be read, or has lost entries.
            RefusedError: an instrument has changed under the ledger, or another version wrote it.
        """
        await self._recover()
        commands = setup_commands(self.table, self._state.configuration)
        self._wire()
        self._running = True
        self.sequencer.start()
        if len(commands):
            await self._apply_setup(commands)
        with contextlib.suppress(RedisError, OSError):
            await self._inbox.open()
        self._run("results", self._results.run())
        self._run("order state", self._order_state.run())
        self._run("own market", self._own.run())
        self._run("inbox", self._inbox.run())
        self.ready = True
        logger.info(
            "engine stands at seq %d: snapshot %d, %d commands replayed in %.2f s, %d live orders",
            self._state.seq, self._snapshotter.seq, self._recovery.replayed, self._recovery.seconds,
            self.engine.live_orders,
        )  # fmt: skip

    async def stop(self) -> None:
        """Write what waits, take a last snapshot, and let go of everything."""
        self.ready = False
        if self._running:
            self._running = False
            await self._cancel("inbox")
            await self.sequencer.stop(WRITE_SECONDS)
            await self._cancel("order state")
            await asyncio.gather(self._flush(), self._snapshotter.finish(SNAPSHOT_SECONDS))
        await self._cancel()
        with contextlib.suppress(RedisError, OSError):
            await self._ledger.close()

    def health(self) -> Health:
        """Tell the present state; never blocks."""
        if self._broken or (self._running and self.sequencer.failure):
            return Health("failed", self._broken or self.sequencer.failure, final=self.sequencer.fenced)
        if not self.ready:
            return Health("starting", self._ledger.trouble or "the engine recovers from the ledger")
        if self._ledger.trouble:
            return Health(
                "degraded", f"{self.sequencer.pending} commands wait for the ledger: {self._ledger.trouble}"
            )
        for part in (self._snapshotter, self._results, self._order_state, self._own, self._inbox):
            if part.trouble:
                return Health("degraded", part.trouble)
        return Health("ok", "; ".join(self._recovery.problems))

    @property
    def ledger_trouble(self) -> str:
        """Why it is of no use to send commands now: the ledger has been away for longer than a restart takes."""
        away = time.monotonic() - self._ledger.trouble_since > PATIENCE_SECONDS
        return self._ledger.trouble if away else ""

    def stats(self) -> dict[str, float | int | str]:
        """Give the figures that the status line and `/stats` show; never blocks."""
        if not self._running:
            return {}
        sequencer = self.sequencer
        figures: dict[str, float | int | str] = {
            "orders": self.orders.placed,
            "live_orders": self.engine.live_orders,
            "user_orders_live": self.orders.live,
            "commands": sequencer.commands,
            "commands_per_second": round(self._commands_per_second(), 1),
            "events": sequencer.events,
            "ledger_batches": sequencer.batches,
            "avg_batch": round(sequencer.commands / max(1, sequencer.batches), 2),
            "ledger_entries": self._ledger.entries,
            "pending": sequencer.pending,
            "last_seq": sequencer.seq,
            "snapshot_seq": self._snapshotter.seq,
            "snapshot_bytes": self._snapshotter.bytes,
            "snapshot_stall_ms": round(self._snapshotter.stall / 1e6, 3),
            "replayed": self._recovery.replayed,
            "recovery_seconds": round(self._recovery.seconds, 3),
            "results_dropped": self._results.dropped,
            "state_syncs": self._order_state.syncs,
            "inbox_commands": self._inbox.commands,
            "inbox_refused": self._inbox.refused,
            "inbox_damaged": self._inbox.damaged,
        }
        stages = {
            "submit_to_durable": sequencer.durable,
            "durable_to_matched": sequencer.matched,
            "submit_to_reply": sequencer.answered,
            "state_sync": self._order_state.latency,
        }
        for name, recorder in stages.items():
            figures |= milliseconds(recorder, {f"{name}_p50_ms": 50, f"{name}_p99_ms": 99})
        return figures

    def _commands_per_second(self) -> float:
        now, count = time.monotonic(), self.sequencer.commands
        when, before, rate = self._rate
        if now - when >= 1:
            rate = (count - before) / (now - when)
            self._rate = (now, count, rate)
        return rate

    async def _recover(self) -> None:
        self._results = ResultsPublisher(self._writer(self._bus.results, "rtrs:{0}"))
        newest = (await self._store.seqs() or [0])[0]
        published = 0
        try:
            published = (await self._results.open(newest))[0]
        except (RedisError, OSError) as error:
            logger.warning("results: %s; what they lack is not known", error)
        self._recovery = await recover(self._ledger, self._store, self._fresh_state, self._results.add)
        self._state = self._recovery.state
        self.engine, self.orders = self._state.engine, self._state.orders
        if published > self._state.seq:
            await _discard(self._bus.results, "rtrs:{0}")
            self._results = ResultsPublisher(self._writer(self._bus.results, "rtrs:{0}"))
        self._changes = self._writer(self._bus.market, "rtss:{0}")
        with contextlib.suppress(RedisError, OSError):
            if (await self._changes.last_id())[0] > self._state.seq:
                await _discard(self._bus.market, "rtss:{0}")
                self._changes = self._writer(self._bus.market, "rtss:{0}")

    def _fresh_state(self) -> TradingState:
        return TradingState(self._settings.order_history)

    def _wire(self) -> None:
        settings, bus, state = self._settings, self._bus, self._state
        self.sequencer = Sequencer(self._ledger, state)
        self._snapshotter = Snapshotter(
            self._ledger, self._store, state, settings.snapshot_commands, self._recovery.snapshots
        )
        self._order_state = OrderStatePublisher(
            bus.market, self._changes, state, settings.state_sync_ms / 1000, settings.state_sync_trades
        )
        self._own = self._own_market(state)
        self._inbox = Inbox(bus.market, self.sequencer, min(1.0, settings.redis_socket_timeout / 2))
        self.sequencer.subscribe(self._publish)
        self._stages.adopt("durable_to_matched", self.sequencer.matched)
        self._stages.adopt("state_sync", self._order_state.latency)

    def _own_market(self, state: TradingState) -> OwnMarketPublisher:
        settings = self._settings
        writer = StreamWriter(self._bus.market, "own:{0}", segment_span=settings.segment_seconds * 1_000_000)
        publisher = Publisher(writer, settings.batch_interval_ms, settings.max_batch_size)
        return OwnMarketPublisher(publisher, state, self.table)

    def _publish(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        self._results.add(commands, events)
        self._order_state.note(self._own.add(events))
        self._snapshotter.after_batch()

    def _writer(self, client: Redis, prefix: str) -> StreamWriter:
        ttl = self._settings.results_ttl_seconds if client is self._bus.results else None
        return StreamWriter(client, prefix, segment_span=COMMANDS_PER_SEGMENT, ttl_seconds=ttl)

    async def _apply_setup(self, commands: NDArray[Any]) -> None:
        answered: asyncio.Future[NDArray[Any]] = asyncio.get_running_loop().create_future()
        self.sequencer.submit(commands, lambda events: answered.set_result(events.copy()))
        events = await answered
        if not len(events):
            raise LedgerError(self.sequencer.failure)
        refused = events[events["kind"] == EventKind.REJECTED]
        if len(refused):
            symbol, reason = self.table[int(refused["instrument"][0])].symbol, Reason(int(refused["reason"][0]))
            raise RefusedError(f"{symbol}: the engine does not take its settings: {reason.name}")

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = f"{task.get_name()} stopped: {error}"
            logger.critical("%s stopped", task.get_name(), exc_info=error)

    async def _cancel(self, name: str = "") -> None:
        """End one task, or all."""
        await end_tasks(task for task in self._tasks if name in ("", task.get_name()))

    async def _flush(self) -> None:
        """Give the streams a moment to take the last events and order states."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._results.flush()
                await self._order_state.sync()


async def _discard(client: Redis, prefix: str) -> None:
    """Delete a stream that goes on beyond the ledger: it tells of commands that were cut off."""
    logger.warning("%s goes on beyond the ledger and is dropped", prefix)
    async for key in client.scan_iter(match=f"{prefix}:*", count=1000):
        await client.unlink(key)
