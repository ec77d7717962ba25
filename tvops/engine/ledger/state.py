"""Everything that the ledger determines: the engine, and the projections that belong into its snapshots."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tvops.engine.ledger.snapshots import Snapshot
from tvops.engine.matching.engine import Engine
from tvops.engine.projections.configuration import Configuration
from tvops.engine.projections.orders import Captured, OrderTable, pack_state
from tvops.errors import LedgerError


@dataclass(frozen=True, slots=True)
class CapturedState:
    """A copy of the state at one moment."""

    seq: int
    time: int
    engine: bytes
    orders: Captured
    configuration: bytes

    def encode(self) -> bytes:
        """Make the blob of a snapshot; meant for another thread."""
        return Snapshot.of(self.seq, self.time, self._parts()).encode()

    def _parts(self) -> Iterator[tuple[str, bytes]]:
        yield "engine", self.engine
        yield "orders", pack_state(self.orders)
        yield "configuration", self.configuration


class TradingState:
    """The state after some command of the ledger; a pure function of the commands up to there."""

    def __init__(self, order_history: int) -> None:
        """Make the state before the first command."""
        self.engine = Engine()
        self.orders = OrderTable(order_history)
        self.configuration = Configuration()
        self.seq = 0
        self.time = 0

    def apply(self, commands: NDArray[Any]) -> NDArray[Any]:
        """Apply a batch of COMMAND rows that follows; give the EVENT rows, valid until the next call."""
        events = self.engine.apply(commands)
        self.orders.apply(commands, events)
        self.configuration.apply(commands, events)
        self.seq, self.time = int(commands["seq"][-1]), int(commands["time"][-1])
        return events

    def capture(self) -> CapturedState:
        """Copy the state between two batches."""
        return CapturedState(
            self.seq, self.time, self.engine.export_state(), self.orders.capture(), self.configuration.export()
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Stand as ``snapshot`` says; only for a fresh state, which is of no use if this fails.

        Raises:
            LedgerError: a part is missing or has the wrong shape.
        """
        try:
            self.engine.import_state(snapshot.part("engine"))
            self.orders.restore(snapshot.part("orders"))
            self.configuration.restore(snapshot.part("configuration"))
        except ValueError as error:
            raise LedgerError(f"snapshot of seq {snapshot.seq}: {error}") from None
        self.seq, self.time = snapshot.seq, snapshot.time

    def digest(self) -> bytes:
        """Give a digest of the whole state; equal exactly where the states are."""
        parts = (self.engine.digest(), self.orders.digest(), self.configuration.export())
        return hashlib.blake2b(b"".join(parts), digest_size=16).digest()
