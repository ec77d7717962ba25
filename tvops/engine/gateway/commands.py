"""JSON requests -> COMMAND rows, as bytes: one `struct` call a command, no numpy object per field."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.gateway.problems import refuse
from tvops.engine.gateway.schemas import PlaceOrder
from tvops.engine.instruments import MAX_LADDER_TICKS, MAX_QUANTITY_LOTS, DecimalError, Instrument, InstrumentTable
from tvops.engine.ledger.idempotency import client_key
from tvops.engine.records import (
    ALL_INSTRUMENTS,
    COMMAND,
    Flag,
    Kind,
    OrderType,
    SelfTrade,
    Side,
    TimeInForce,
)

_ROW = struct.Struct("<QqqqqQQIHBBBBBBB36s7x")
SIDES = {"buy": Side.BUY.value, "sell": Side.SELL.value}
TYPES = {"limit": OrderType.LIMIT.value, "market": OrderType.MARKET.value}
TIMES = {time.name: time.value for time in TimeInForce}
SELF_TRADES = {choice.name.lower(): choice.value for choice in SelfTrade}
_NEW, _AMEND, _CANCEL, _MASS_CANCEL = Kind.NEW.value, Kind.AMEND.value, Kind.CANCEL.value, Kind.MASS_CANCEL.value
_POST_ONLY = Flag.POST_ONLY.value


def rows(packed: bytes) -> NDArray[Any]:
    """See packed commands as COMMAND rows."""
    return np.frombuffer(packed, COMMAND)


def find_instrument(table: InstrumentTable, symbol: str, field: str = "symbol") -> Instrument:
    """Give the instrument with this symbol.

    Raises:
        ProblemError: there is none.
    """
    instrument = table.by_symbol.get(symbol)
    if instrument is None:
        raise refuse(
            "symbol_not_found", f"{field}: there is no instrument {symbol[:20]!r}; see /v1/symbols", field
        )
    return instrument


def parse_price(instrument: Instrument, text: str) -> int:
    """Give ``text`` in ticks.

    Raises:
        ProblemError: it is not a price that the instrument can have.
    """
    try:
        ticks = instrument.price.parse(text)
    except DecimalError as error:
        raise refuse("invalid_price", f"price: {error}", "price") from None
    if ticks >= MAX_LADDER_TICKS:
        highest = instrument.price.format(instrument.price_high)
        raise refuse("invalid_price", f"price: {text} is above the price band, which ends at {highest}", "price")
    return ticks


def parse_quantity(instrument: Instrument, text: str, field: str = "quantity") -> int:
    """Give ``text`` in lots.

    Raises:
        ProblemError: it is not a quantity that the instrument can have.
    """
    try:
        lots = instrument.quantity.parse(text)
    except DecimalError as error:
        raise refuse("invalid_quantity", f"{field}: {error}", field) from None
    if lots > MAX_QUANTITY_LOTS:
        raise refuse("invalid_quantity", f"{field}: {text} is larger than any order can be", field)
    return lots


def new_order(table: InstrumentTable, account: int, order: PlaceOrder) -> bytes:
    """Pack the NEW command of ``order``.

    Raises:
        ProblemError: unknown symbol, or a number that the instrument cannot have.
    """
    instrument = find_instrument(table, order.symbol)
    lots = parse_quantity(instrument, order.quantity)
    if order.order_type == "limit":
        if order.price is None:
            raise refuse("missing_field", "price is missing: a limit order needs one", "price")
        ticks = parse_price(instrument, order.price)
        time_in_force = TIMES[order.time_in_force or "GTC"]
    else:
        if order.price is not None:
            raise refuse("invalid_field", "price: a market order has none", "price")
        ticks = 0
        time_in_force = TIMES[order.time_in_force or "IOC"]
        if time_in_force == TimeInForce.GTC:
            raise refuse("invalid_field", "time_in_force: a market order is IOC or FOK", "time_in_force")
    client_id, high, low = b"", 0, 0
    if order.client_order_id is not None:
        client_id = order.client_order_id.encode()
        high, low = client_key(account, client_id)
    return _ROW.pack(
        0, 0, 0, ticks, lots, high, low, account, instrument.index, _NEW, SIDES[order.side],
        TYPES[order.order_type], time_in_force, _POST_ONLY if order.post_only else 0,
        SELF_TRADES[order.self_trade], 0, client_id,
    )  # fmt: skip


def amend(account: int, instrument: int, order_id: int, price: int, remaining: int) -> bytes:
    """Pack an AMEND: new ``price`` in ticks and new open quantity in lots."""
    return _pack(_AMEND, account, instrument, order_id=order_id, price=price, quantity=remaining)


def cancel(account: int, instrument: int, order_id: int) -> bytes:
    """Pack a CANCEL."""
    return _pack(_CANCEL, account, instrument, order_id=order_id)


def mass_cancel(account: int, instrument: int | None, side: str | None) -> bytes:
    """Pack a MASS_CANCEL; None stands for all instruments and both sides."""
    index = ALL_INSTRUMENTS if instrument is None else instrument
    return _pack(_MASS_CANCEL, account, index, side=SIDES[side] if side else 0)


def set_limit(account: int, instrument: int, limit: int, value: int) -> bytes:
    """Pack a SET_LIMIT; account 0 stands for all that have none of their own."""
    return _pack(Kind.SET_LIMIT.value, account, instrument, quantity=value, param=limit)


def kill(account: int, active: bool) -> bytes:
    """Pack a KILL of an account or of ALL_ACCOUNTS, or the lifting of one."""
    return _pack(Kind.KILL.value, account, ALL_INSTRUMENTS, quantity=int(active))


def halt(instrument: int, active: bool) -> bytes:
    """Pack a HALT, or the lifting of one."""
    return _pack(Kind.HALT.value, 0, instrument, quantity=int(active))


def _pack(
    kind: int, account: int, instrument: int, order_id: int = 0, price: int = 0, quantity: int = 0,
    side: int = 0, param: int = 0,
) -> bytes:  # fmt: skip
    return _ROW.pack(
        0, 0, order_id, price, quantity, 0, 0, account, instrument, kind, side, 0, 0, 0, 0, param, b""
    )
