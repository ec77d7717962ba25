"""Kernels of the order table: how events change the rows, and how rows are found by account.

Slots are row numbers. In link arrays 0 stands for none, ``slot + 1`` for a slot: zeroed memory is empty.
"""

from typing import Any

from tvops.engine.compiled import kernel
from tvops.engine.projections.index import find, put, remove
from tvops.engine.projections.positions import saturate
from tvops.engine.records import FIRST_USER_ACCOUNT, EventKind, Kind, Reason, Status

FREE = 0  # free slots on the stack
CLOSED_FIRST = 1  # position of the oldest closed order in its ring
CLOSED = 2  # closed orders
CHANGED = 3  # entries of the list of changed slots
LOST = 4  # changed rows that were evicted before anybody took them
PLACED = 5  # orders ever listed
COUNTERS = 8

OLDER, NEWER = 0, 1

_NEW = int(Kind.NEW)
_ACCEPTED, _REJECTED = int(EventKind.ACCEPTED), int(EventKind.REJECTED)
_MAKER_FILL, _TAKER_FILL = int(EventKind.MAKER_FILL), int(EventKind.TAKER_FILL)
_CANCELLED, _AMENDED = int(EventKind.CANCELLED), int(EventKind.AMENDED)
_UNKNOWN_ACCOUNT = int(Reason.UNKNOWN_ACCOUNT)
_OPEN, _PART, _FILLED = int(Status.OPEN), int(Status.PARTIALLY_FILLED), int(Status.FILLED)
_STATUS_CANCELLED, _STATUS_REJECTED = int(Status.CANCELLED), int(Status.REJECTED)


@kernel
def link(slot: int, account: int, links: Any, newest: Any) -> None:
    """Make ``slot`` the newest of its account."""
    older = newest[account]
    links[slot, OLDER] = older
    links[slot, NEWER] = 0
    if older:
        links[older - 1, NEWER] = slot + 1
    newest[account] = slot + 1


@kernel
def _free(
    slot: int, rows: Any, order_keys: Any, client_keys: Any, order_table: Any, client_table: Any, links: Any,
    newest: Any, free: Any, counters: Any,
) -> None:  # fmt: skip
    older, newer = links[slot, OLDER], links[slot, NEWER]
    if older:
        links[older - 1, NEWER] = newer
    if newer:
        links[newer - 1, OLDER] = older
    else:
        newest[rows[slot].account] = older
    if order_keys[slot, 0]:
        remove(order_table, order_keys, slot)
    if client_keys[slot, 0]:
        remove(client_table, client_keys, slot)
    rows[slot].status = 0
    free[counters[FREE]] = slot
    counters[FREE] += 1


@kernel
def _mark(slot: int, marks: Any, changed: Any, counters: Any) -> None:
    if marks[slot]:
        return
    if counters[CHANGED] == changed.shape[0]:
        counters[LOST] += 1
        return
    marks[slot] = 1
    changed[counters[CHANGED]] = slot
    counters[CHANGED] += 1


@kernel
def _close(slot: int, closed: Any, counters: Any) -> int:
    """Enter ``slot`` as the last one closed; give the one that has to go for it, -1: none."""
    size = closed.shape[0]
    evicted = -1
    if counters[CLOSED] == size:
        evicted = closed[counters[CLOSED_FIRST]]
        counters[CLOSED_FIRST] = (counters[CLOSED_FIRST] + 1) % size
        counters[CLOSED] -= 1
    closed[(counters[CLOSED_FIRST] + counters[CLOSED]) % size] = slot
    counters[CLOSED] += 1
    return evicted


@kernel
def _create(row: Any, command: Any, event: Any) -> None:
    row.order_id = event.order_id
    row.price = command.price
    row.quantity = command.quantity
    row.filled = 0
    row.notional = 0
    row.created = event.time
    row.seq = event.command_seq
    row.account = command.account
    row.instrument = command.instrument
    row.reason = 0
    row.side = command.side
    row.order_type = command.order_type
    row.time_in_force = command.time_in_force
    row.flags = command.flags
    row.status = _OPEN
    row.client_id = command.client_id


@kernel
def _update(row: Any, event: Any) -> bool:
    """Let ``event`` change ``row``; tell whether that closes the order."""
    kind = event.kind
    row.updated = event.time
    row.update_seq = event.command_seq
    if kind == _ACCEPTED:
        row.price = event.price
        row.quantity = event.quantity
    elif kind == _REJECTED:
        row.status = _STATUS_REJECTED
        row.reason = event.reason
    elif kind == _CANCELLED:
        row.status = _STATUS_CANCELLED
        row.reason = event.reason
    elif kind == _AMENDED:
        row.price = event.price
        row.quantity = row.filled + event.leaves
    else:
        row.filled += event.quantity
        row.notional = saturate(row.notional + saturate(event.price * event.quantity))
        row.status = _PART if event.leaves > 0 else _FILLED
    return bool(row.status > _PART)


@kernel
def apply_events(
    commands: Any, events: Any, rows: Any, order_keys: Any, client_keys: Any, order_table: Any, client_table: Any,
    links: Any, newest: Any, open_orders: Any, closed: Any, free: Any, marks: Any, changed: Any, counters: Any,
) -> None:  # fmt: skip
    """Let the events of a batch change the table; at least as many slots are free as there are commands."""
    first = commands[0].seq
    for n in range(events.shape[0]):
        event = events[n]
        kind, account = event.kind, int(event.account)
        if account < FIRST_USER_ACCOUNT or account >= newest.shape[0]:
            continue
        if kind in (_ACCEPTED, _REJECTED):
            command = commands[int(event.command_seq - first)]
            if command.kind != _NEW or event.reason == _UNKNOWN_ACCOUNT:
                continue
            counters[FREE] -= 1
            slot = int(free[counters[FREE]])
            _create(rows[slot], command, event)
            order_keys[slot, 0] = event.order_id
            client_keys[slot, 0], client_keys[slot, 1] = command.key_high, command.key_low
            marks[slot] = 0
            link(slot, account, links, newest)
            if event.order_id:
                put(order_table, order_keys, slot)
            if client_keys[slot, 0]:
                put(client_table, client_keys, slot)
            counters[PLACED] += 1
            open_orders[account] += 1
        elif kind in (_MAKER_FILL, _TAKER_FILL, _CANCELLED, _AMENDED):
            slot = find(order_table, order_keys, event.order_id, 0)
            if slot < 0:
                continue
        else:
            continue
        ended = _update(rows[slot], event)
        _mark(slot, marks, changed, counters)
        if ended:
            open_orders[account] -= 1
            evicted = _close(slot, closed, counters)
            if evicted >= 0:
                counters[LOST] += marks[evicted]
                _free(
                    evicted, rows, order_keys, client_keys, order_table, client_table, links, newest, free,
                    counters,
                )  # fmt: skip


@kernel
def select_slots(
    rows: Any, links: Any, start: int, before: int, statuses: int, instrument: int, found: Any
) -> int:
    """Walk from ``start`` to older orders and note those that match; give how many.

    Args:
        rows: ORDER rows.
        links: (slots, 2).
        start: link to the first order to look at.
        before: orders with an id from here on are passed over.
        statuses: bit mask of `Status` values.
        instrument: -1 for any.
        found: takes the slots; its length is the limit.
    """
    count = 0
    at = start
    while at and count < found.shape[0]:
        row = rows[at - 1]
        if (
            (statuses >> row.status) & 1
            and (instrument < 0 or row.instrument == instrument)
            and row.order_id < before
        ):
            found[count] = at - 1
            count += 1
        at = links[at - 1, OLDER]
    return count


@kernel
def relink(rows: Any, links: Any, newest: Any, open_orders: Any, count: int) -> None:
    """Build links and open counts of the first ``count`` rows, which lie in the order of their creation."""
    for slot in range(count):
        row = rows[slot]
        link(slot, int(row.account), links, newest)
        if row.status <= _PART:
            open_orders[row.account] += 1


@kernel
def reindex(slots: Any, order_keys: Any, client_keys: Any, order_table: Any, client_table: Any) -> None:
    """Enter ``slots`` into both indexes."""
    for n in range(slots.shape[0]):
        slot = int(slots[n])
        if order_keys[slot, 0]:
            put(order_table, order_keys, slot)
        if client_keys[slot, 0]:
            put(client_table, client_keys, slot)
