"""The commands that bring the ledger in line with the settings: instruments, limits, liquidity accounts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.instruments import InstrumentTable
from tvops.engine.projections.configuration import SETTINGS_ID, Configuration
from tvops.engine.records import (
    ALL_INSTRUMENTS,
    COMMAND,
    MIRROR_MAKER,
    MIRROR_TAKER,
    SIM_ACCOUNTS,
    Kind,
    Limit,
)
from tvops.errors import RefusedError

MAX_OPEN_ORDERS = 100_000
"""Open orders that an account may have unless a limit of its own says otherwise."""


def setup_commands(table: InstrumentTable, configuration: Configuration) -> NDArray[Any]:
    """Give the COMMAND rows for what differs between the settings and the ledger; none where nothing does.

    Raises:
        RefusedError: an instrument changed in a way that would give the ledger's records another meaning.
    """
    known = configuration.instruments()
    if len(known) > len(table):
        raise RefusedError(
            f"instruments: the ledger has {len(known)} of them, the file only {len(table)}; "
            "put the missing ones back at their places"
        )
    rows = []
    for instrument in table.all:
        ladder = (instrument.price_low, instrument.ladder_ticks, table.scale_digest(instrument.index))
        _check(instrument.symbol, known.get(instrument.index), ladder)
        if instrument.index not in known:
            rows.append(
                _row(Kind.DEFINE, instrument.index, price=ladder[0], quantity=ladder[1], order_id=ladder[2])
            )
    for limit, account, index, value in _limits(table):
        if configuration.limit(limit, account, index) != value:
            rows.append(_row(Kind.SET_LIMIT, index, account=account, param=limit, quantity=value))
    return np.concatenate(rows) if rows else np.zeros(0, COMMAND)


def _check(symbol: str, known: tuple[int, int, int] | None, ladder: tuple[int, int, int]) -> None:
    if known is None or known == ladder:
        return
    if known[2] != ladder[2]:
        raise RefusedError(
            f"{symbol}: symbol, tick_size or lot_size is not what the ledger's orders were placed with; "
            "change it back, or use another data directory"
        )
    raise RefusedError(
        f"{symbol}: price_low and price_high are not the {known[0]} and {known[0] + known[1] - 1} ticks that the "
        "ledger has; change them back, or use another data directory"
    )


def _limits(table: InstrumentTable) -> list[tuple[Limit, int, int, int]]:
    """Give limit, account, instrument and value of all that the settings say."""
    limits = [(Limit.MAX_OPEN_ORDERS, 0, ALL_INSTRUMENTS, MAX_OPEN_ORDERS)]
    for account in (MIRROR_MAKER, MIRROR_TAKER, *SIM_ACCOUNTS):
        limits.append((Limit.EXEMPT, account, ALL_INSTRUMENTS, 1))
    for i in table.all:
        limits.append((Limit.MAX_ORDER_QUANTITY, 0, i.index, i.max_quantity))
        limits.append((Limit.MAX_ORDER_NOTIONAL, 0, i.index, i.max_notional))
        limits.append((Limit.MAX_POSITION, 0, i.index, i.max_position))
        limits.append((Limit.COLLAR, 0, i.index, i.collar_bps))
    return limits


def _row(kind: Kind, instrument: int, **fields: int) -> NDArray[Any]:
    row = np.zeros(1, COMMAND)
    row["kind"], row["instrument"], row["client_id"] = kind, instrument, SETTINGS_ID
    for name, value in fields.items():
        row[name] = value
    return row
