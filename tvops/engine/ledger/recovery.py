"""Recovery: the newest good snapshot, then every entry behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.ledger.ledger import DamageError, Ledger
from tvops.engine.ledger.snapshots import SnapshotStore
from tvops.engine.ledger.state import TradingState
from tvops.engine.records import COMMAND
from tvops.errors import LedgerError

REPLAY_ROWS = 4096
"""Commands that a replay applies at once; events do not depend on it."""

Observer = Callable[[NDArray[Any], NDArray[Any]], None]
"""Is given the COMMAND and EVENT rows of a batch, valid during the call."""

logger = logging.getLogger(__name__)


@dataclass
class Recovery:
    """What a recovery found."""

    state: TradingState
    snapshots: list[int]  # seqs of the good snapshots that are kept, newest first
    replayed: int = 0
    seconds: float = 0.0
    cut: str = ""  # the stream that damaged entries were put into; empty: none were
    problems: list[str] = field(default_factory=list)  # one line each, for the operator


async def recover(
    ledger: Ledger, store: SnapshotStore, make_state: Callable[[], TradingState], observer: Observer | None = None
) -> Recovery:
    """Bring back the state that the ledger describes, and open the ledger behind its last good entry.

    Entries from the first damaged or missing one on are put aside; that and damaged snapshots are logged as
    errors.

    Args:
        ledger: not open yet.
        store: its snapshots.
        make_state: makes the state before the first command.
        observer: is given every batch that is replayed.

    Raises:
        LedgerError: the ledger does not go back to the beginning and there is no good snapshot, entries that a
            snapshot stands on are missing, or the server does not answer.
        RefusedError: another version of tvops wrote the ledger.
    """
    begun = time.perf_counter()
    found = await _restore(store, make_state)
    await _check_ends(ledger, found)
    damage = await _replay(ledger, found, observer)
    if damage:
        found.cut = await ledger.cut(found.state.seq + 1)
        _tell(found, f"{ledger.key}: {damage}; everything from there on is put aside in {found.cut}")
    _, last = await ledger.first_and_last()
    await ledger.open(int(last.name.split(b"-")[0]) if last else 0)
    found.seconds = time.perf_counter() - begun
    return found


async def replay_digest(
    ledger: Ledger, store: SnapshotStore, make_state: Callable[[], TradingState], start: int = 0
) -> tuple[int, bytes]:
    """Replay the ledger from its beginning, or from the snapshot after seq ``start``: give last seq and digest.

    The proof of a recovery: its state has the same digest. Changes nothing.

    Raises:
        LedgerError: the ledger does not reach back that far, or is damaged.
    """
    found = Recovery(make_state(), [])
    if start:
        found.state.restore(await store.read(start))
    damage = await _replay(ledger, found, None)
    if damage:
        raise DamageError(f"{ledger.key}: {damage}")
    return found.state.seq, found.state.digest()


async def _restore(store: SnapshotStore, make_state: Callable[[], TradingState]) -> Recovery:
    problems, good = [], []
    found = None
    for seq in await store.seqs():
        state = make_state()
        try:
            snapshot = await store.read(seq)
            if found is None:
                await asyncio.to_thread(state.restore, snapshot)
                found = state
            good.append(seq)
        except LedgerError as error:
            problems.append(str(error))
    recovery = Recovery(found or make_state(), good)
    for problem in problems:
        _tell(recovery, f"snapshot passed over: {problem}")
    return recovery


async def _check_ends(ledger: Ledger, found: Recovery) -> None:
    """See to it that a ledger that lost entries is never taken for a shorter one."""
    first, last = await ledger.first_and_last()
    seq = found.state.seq
    if first is None or last is None:
        if seq:
            raise LedgerError(
                f"{ledger.key}: has no entries, but there is a snapshot of seq {seq}; restore the server's files"
            )
        return
    if not seq and first.name != b"1-0":
        raise LedgerError(
            f"{ledger.key}: begins with entry {first.name.decode()} and there is no good snapshot of what came "
            "before; restore the server's files"
        )
    start = int(last.name.split(b"-")[0])
    if seq and start <= seq:
        try:
            end = int(last.commands(start)["seq"][-1])
        except DamageError as error:
            _tell(found, f"{ledger.key}: {error}; the snapshot of seq {seq} is whole and stands in for it")
            return
        if end != seq:
            raise LedgerError(
                f"{ledger.key}: ends with seq {end}, but there is a snapshot of seq {seq}: entries are lost; "
                "restore the server's files"
            )


async def _replay(ledger: Ledger, found: Recovery, observer: Observer | None) -> str:
    """Apply every entry behind the state; give what is wrong with the first that is damaged, "" if none is."""
    state = found.state
    gathered = np.zeros(2 * REPLAY_ROWS, COMMAND)
    expected, damage = state.seq + 1, ""

    def flush(count: int) -> None:
        if count:
            events = state.apply(gathered[:count])
            if observer:
                observer(gathered[:count], events)
            found.replayed += count

    count = 0
    while not damage and (entries := await ledger.read(expected)):
        for entry in entries:
            try:
                rows = entry.commands(expected)
            except DamageError as error:
                damage = str(error)
                break
            if count + len(rows) > len(gathered) or count >= REPLAY_ROWS:
                flush(count)
                count = 0
            gathered[count : count + len(rows)] = rows
            count += len(rows)
            expected += len(rows)
    flush(count)
    return damage


def _tell(found: Recovery, problem: str) -> None:
    logger.error("%s", problem)
    found.problems.append(problem)
