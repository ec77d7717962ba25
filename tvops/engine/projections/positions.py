"""Positions of all accounts, from fills, by the average cost method.

Amounts are ticks x lots. They and quantities saturate at +-(2**62 - 1) instead of wrapping around.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.instruments import MAX_INSTRUMENTS
from tvops.engine.records import EVENT, POSITION, EventKind, Side

LARGEST = (1 << 62) - 1
_QUANTITY, _COST, _REALIZED = range(3)
_MAKER_FILL, _TAKER_FILL, _BUY = int(EventKind.MAKER_FILL), int(EventKind.TAKER_FILL), int(Side.BUY)


class Positions:
    """Quantity, cost and realized profit for every account and instrument; a pure function of the events."""

    def __init__(self, max_accounts: int) -> None:
        self._held = np.zeros((max_accounts, MAX_INSTRUMENTS, 3), np.int64)
        self._traded = np.zeros((max_accounts, MAX_INSTRUMENTS), np.bool_)
        self._changed = np.zeros((max_accounts, MAX_INSTRUMENTS), np.bool_)
        self._changes = np.zeros((max_accounts * MAX_INSTRUMENTS, 2), np.int32)
        self._count = np.zeros(1, np.int64)

    def apply(self, events: NDArray[Any]) -> None:
        """Take in the fills of a batch of EVENT rows."""
        assert events.dtype == EVENT
        _apply(events, self._held, self._traded, self._changed, self._changes, self._count)

    def of(self, account: int) -> NDArray[Any]:
        """Give the POSITION rows of ``account``, one for each instrument that it ever traded."""
        if not 0 <= account < len(self._traded):
            return np.zeros(0, POSITION)
        instruments = np.flatnonzero(self._traded[account])
        return self._rows(np.full(len(instruments), account), instruments)

    def take_changed(self) -> NDArray[Any]:
        """Give the POSITION rows that changed since the last call."""
        changes = self._changes[: self._count[0]]
        accounts, instruments = changes[:, 0], changes[:, 1]
        self._changed[accounts, instruments] = False
        self._count[0] = 0
        return self._rows(accounts, instruments)

    def export(self) -> NDArray[Any]:
        """Give the POSITION rows of all accounts, by account and instrument."""
        accounts, instruments = np.nonzero(self._traded)
        return self._rows(accounts, instruments)

    def restore(self, rows: NDArray[Any]) -> None:
        """Stand as `export` described it; only for a fresh one."""
        accounts, instruments = rows["account"], rows["instrument"]
        self._traded[accounts, instruments] = True
        for column, name in enumerate(("quantity", "cost", "realized")):
            self._held[accounts, instruments, column] = rows[name]

    def _rows(self, accounts: NDArray[Any], instruments: NDArray[Any]) -> NDArray[Any]:
        rows = np.zeros(len(accounts), POSITION)
        rows["account"], rows["instrument"] = accounts, instruments
        held = self._held[accounts, instruments]
        for column, name in enumerate(("quantity", "cost", "realized")):
            rows[name] = held[:, column]
        return rows


@kernel
def saturate(value: int) -> int:
    """Bring a sum of two saturated values back into their range."""
    return max(-LARGEST, min(LARGEST, value))


@kernel
def share(amount: int, part: int, whole: int) -> int:
    """Give ``amount`` x ``part`` / ``whole`` towards zero, without overflow; 0 <= part <= whole <= 2**62."""
    size = abs(amount)
    result, rest = (size // whole) * part, size % whole
    if whole < 1 << 31:
        result += rest * part // whole
    else:
        quotient, remainder = 0, 0
        for bit in range(62, -1, -1):
            quotient, remainder = quotient * 2, remainder * 2
            if remainder >= whole:
                quotient, remainder = quotient + 1, remainder - whole
            if (part >> bit) & 1:
                remainder += rest
                if remainder >= whole:
                    quotient, remainder = quotient + 1, remainder - whole
        result += quotient
    return result if amount >= 0 else -result


@kernel
def _trade(held: Any, signed: int, price: int) -> None:
    """Take a fill of ``signed`` lots (negative: sold) into one position."""
    position = held[_QUANTITY]
    opening = signed
    if (position > 0) != (signed > 0) and position != 0:
        closing = min(abs(position), abs(signed))
        released = share(held[_COST], closing, abs(position))
        proceeds = saturate(price * closing) if position > 0 else -saturate(price * closing)
        held[_REALIZED] = saturate(held[_REALIZED] + saturate(proceeds - released))
        held[_COST] -= released
        opening = signed + closing if signed < 0 else signed - closing
    amount = saturate(price * abs(opening))
    held[_COST] = saturate(held[_COST] + (amount if opening > 0 else -amount))
    held[_QUANTITY] = saturate(position + signed)


@kernel
def _apply(events: Any, held: Any, traded: Any, changed: Any, changes: Any, count: Any) -> None:
    for n in range(events.shape[0]):
        event = events[n]
        if event.kind != _MAKER_FILL and event.kind != _TAKER_FILL:
            continue
        account, instrument = int(event.account), int(event.instrument)
        if account >= held.shape[0] or instrument >= held.shape[1]:
            continue
        signed = event.quantity if event.side == _BUY else -event.quantity
        _trade(held[account, instrument], signed, event.price)
        traded[account, instrument] = True
        if not changed[account, instrument]:
            changed[account, instrument] = True
            changes[count[0], 0] = account
            changes[count[0], 1] = instrument
            count[0] += 1
