"""The order flow of the matching benchmark: one instrument, many accounts, cancels of random live orders.

First 10,000 orders are only added. Then for every operation the mid moves by up to `step_max` ticks with
probability `step`, and it is: 55 % a passive limit order 1 + k ticks from the mid (k geometric with parameter
`depth`, capped at 2,000), of 1 to 100 lots; 40 % a cancel of a uniformly random live order (an add while fewer
than 100 live); 5 % a limit order 10 ticks through the mid, of 1 to `aggression` lots. A flash crash takes the mid
down by 30 % within a tenth of the flow and back up within the next.

The commands are made against the engine itself, one by one, so that every cancel names an order that lives.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from tvops.engine.matching import layout as at
from tvops.engine.matching.batch import apply_batch
from tvops.engine.matching.engine import Engine
from tvops.engine.records import COMMAND, EventKind, Kind, Limit

MID, LADDER, FIRST_ACCOUNT = 100_000, 200_000, 100
_ACCEPTED, _MAKER_FILL, _TAKER_FILL = int(EventKind.ACCEPTED), int(EventKind.MAKER_FILL), int(EventKind.TAKER_FILL)
_CANCELLED = int(EventKind.CANCELLED)
_NEW, _CANCEL = int(Kind.NEW), int(Kind.CANCEL)
_PREFILL, _FEWEST = 10_000, 100


@dataclass(frozen=True)
class Workload:
    """Parameters of a flow."""

    name: str
    step: float
    step_max: int
    depth: float
    aggression: int
    crash: bool = False


WORKLOADS = {
    w.name: w
    for w in (
        Workload("base", 0.005, 1, 0.1, 100),
        Workload("wide", 0.1, 10, 0.007, 100),
        Workload("deep", 0.02, 2, 0.002, 100),
        Workload("flash", 0.005, 1, 0.1, 100, crash=True),
    )
}


def opening() -> NDArray[np.void]:
    """Give the commands that define the instrument and set every kind of limit."""
    limits = {
        Limit.MAX_ORDER_QUANTITY: 1_000_000,
        Limit.MAX_ORDER_NOTIONAL: 1 << 50,
        Limit.MAX_POSITION: 1 << 36,
        Limit.MAX_OPEN_ORDERS: 1 << 18,
        Limit.COLLAR: 5_000,
    }
    rows = np.zeros(len(limits) + 1, COMMAND)
    rows["seq"] = np.arange(1, len(rows) + 1)
    rows[0]["kind"], rows[0]["price"], rows[0]["quantity"] = Kind.DEFINE, 1, LADDER
    for row, (limit, value) in zip(rows[1:], limits.items(), strict=True):
        row["kind"], row["param"], row["quantity"] = Kind.SET_LIMIT, limit, value
    return rows


def flow(workload: Workload, operations: int, accounts: int, seed: int = 42) -> NDArray[np.void]:
    """Make the commands of a workload, the opening first."""
    engine = Engine()
    head = opening()
    engine.apply(head)
    rows = np.zeros(operations, COMMAND)
    mids = np.full(operations, MID)
    if workload.crash:
        tenth = operations // 10
        down = np.linspace(0, 0.3 * MID, tenth).astype(np.int64)
        mids[4 * tenth : 5 * tenth] -= down
        mids[5 * tenth : 6 * tenth] -= down[::-1]
    _make(
        engine._arena.words, rows.view(np.int64), engine._events.words, engine._events.room, len(head) + 1, mids,
        workload.step, workload.step_max, workload.depth, workload.aggression, accounts, seed,
    )  # fmt: skip
    return np.concatenate([head, rows])


def _make_slowly(
    state: NDArray[np.int64], commands: NDArray[np.int64], events: NDArray[np.int64], room: int, first_seq: int,
    mids: NDArray[np.int64], step: float, step_max: int, depth: float, aggression: int, accounts: int, seed: int,
) -> None:  # fmt: skip
    np.random.seed(seed)
    live = np.zeros(at.SLOT_MASK + 1, np.int64)  # order ids
    owners = np.zeros(at.SLOT_MASK + 1, np.int64)
    place = np.zeros(at.SLOT_MASK + 1, np.int64)  # of a slot's order in `live`
    count = 0
    drift = 0
    for i in range(len(mids)):
        if np.random.random() < step:
            drift += np.random.randint(1, step_max + 1) * (1 if np.random.random() < 0.5 else -1)
            drift = min(max(drift, -20_000), 20_000)
        mid = mids[i] + drift
        c = i * at.COMMAND_WORDS
        commands[c + at.C_SEQ] = first_seq + i
        choice = np.random.random()
        side = np.random.randint(1, 3)
        toward = 1 if side == 1 else -1
        account = FIRST_ACCOUNT + np.random.randint(0, accounts)
        if i >= _PREFILL and choice >= 0.6 and count >= _FEWEST:
            chosen = np.random.randint(0, count)
            commands[c + at.C_ORDER_ID] = live[chosen]
            commands[c + at.C_WHO] = owners[chosen] | (_CANCEL << 48)
        else:
            if i < _PREFILL or choice < 0.55 or choice >= 0.6:
                k = min(np.random.geometric(depth) - 1, 2000)
                price, quantity = mid - toward * (1 + k), np.random.randint(1, 101)
            else:
                price, quantity = mid + toward * 10, np.random.randint(1, aggression + 1)
            commands[c + at.C_PRICE] = price
            commands[c + at.C_QUANTITY] = quantity
            commands[c + at.C_WHO] = account | (_NEW << 48) | (side << 56)
            commands[c + at.C_HOW] = 1 | (1 << 8)
        told = apply_batch(state, commands, events, i, i + 1, 0, room)
        taker, left = 0, 0
        for row in range(told):
            e = row * at.EVENT_WORDS
            kind = (events[e + 7] >> 48) & 0xFF
            gone = 0
            if kind == _ACCEPTED:
                taker, left = events[e + 2], events[e + 6]
            elif kind == _TAKER_FILL:
                left = events[e + 6]
            elif kind == _CANCELLED and events[e + 2] == taker:
                left = 0
            elif kind == _CANCELLED or (kind == _MAKER_FILL and events[e + 6] == 0):
                gone = events[e + 2]
            if gone != 0:
                count -= 1
                hole = place[gone & at.SLOT_MASK]
                live[hole], owners[hole] = live[count], owners[count]
                place[live[hole] & at.SLOT_MASK] = hole
        if left > 0:
            live[count], owners[count] = taker, account
            place[taker & at.SLOT_MASK] = count
            count += 1


_make: Any = numba.njit(_make_slowly)
"""Not cached: the cache would not see a change of the engine."""
