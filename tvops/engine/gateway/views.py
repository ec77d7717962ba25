"""Records -> the JSON objects of the gateway."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from tvops.engine.gateway.problems import reason_name
from tvops.engine.gateway.schemas import Book, Fill, Level, Order, PlacedOrder, PlaceOrder, Position, SymbolInfo
from tvops.engine.gateway.times import format_time
from tvops.engine.instruments import Instrument, InstrumentTable, Step, format_scaled
from tvops.engine.records import (
    EVENT,
    ORDER,
    POSITION,
    EventKind,
    Flag,
    OrderType,
    Reason,
    Side,
    Status,
    TimeInForce,
)

RATIO_PLACES = 4
"""Decimal places that an average price has beyond those of the tick size."""

_SIDE: dict[int, Any] = {side.value: side.name.lower() for side in Side}
_TYPE: dict[int, Any] = {kind.value: kind.name.lower() for kind in OrderType}
_TIME: dict[int, Any] = {time.value: time.name for time in TimeInForce}
STATUS_NAMES: dict[int, Any] = {status.value: status.name.lower() for status in Status}
_REASON = {reason.value: reason.name.lower() for reason in Reason}
_NAMES: tuple[str, ...] = ORDER.names or ()
_O = {name: at for at, name in enumerate(_NAMES)}
_P = {name: at for at, name in enumerate(POSITION.names or ())}
E = {name: at for at, name in enumerate(EVENT.names or ())}
"""Places of the fields in an EVENT row as a tuple."""

_E_TIME, _E_ORDER, _E_REF, _E_PRICE, _E_QUANTITY = (E[n] for n in ("time", "order_id", "ref", "price", "quantity"))
_E_LEAVES, _E_INSTRUMENT, _E_KIND, _E_SIDE, _E_REASON = (
    E[n] for n in ("leaves", "instrument", "kind", "side", "reason")
)
_MAKER, _TAKER, _CANCELLED = EventKind.MAKER_FILL.value, EventKind.TAKER_FILL.value, EventKind.CANCELLED.value
_POST_ONLY = Flag.POST_ONLY.value

Row = tuple[Any, ...]


def format_ratio(step: Step, numerator: int, denominator: int) -> str:
    """Write steps ``numerator / denominator`` as a decimal, rounded half up to `RATIO_PLACES` more places."""
    negative = (numerator < 0) != (denominator < 0)
    units = abs(numerator) * step.units * 10**RATIO_PLACES
    rounded = (2 * units + abs(denominator)) // (2 * abs(denominator))
    places = step.places + RATIO_PLACES
    while places > step.places and rounded % 10 == 0:
        rounded //= 10
        places -= 1
    return format_scaled(-rounded if negative else rounded, places)


def placed_order(instrument: Instrument, request: PlaceOrder, events: list[Row]) -> PlacedOrder:
    """Give an order as its own first events leave it (``events[0]`` is its ACCEPTED)."""
    first = events[0]
    order_id, lots = first[_E_ORDER], first[_E_QUANTITY]
    filled = notional = reason = 0
    fills = []
    for event in events:
        if event[_E_ORDER] != order_id:
            continue
        kind = event[_E_KIND]
        if kind == _TAKER:
            filled += event[_E_QUANTITY]
            notional += event[_E_QUANTITY] * event[_E_PRICE]
            fills.append(fill(instrument, event))
        elif kind == _CANCELLED:
            reason = event[_E_REASON]
    left = 0 if reason else lots - filled
    status = "cancelled" if reason else "filled" if not left else "partially_filled" if filled else "open"
    time = format_time(first[_E_TIME])
    price, quantity = instrument.price, instrument.quantity
    is_limit = request.order_type == "limit"
    return PlacedOrder(
        order_id=str(order_id),
        client_order_id=request.client_order_id,
        symbol=instrument.symbol,
        side=request.side,
        order_type=request.order_type,
        time_in_force=request.time_in_force or ("GTC" if is_limit else "IOC"),
        post_only=request.post_only,
        status=status,  # type: ignore[arg-type]
        reason=_REASON[reason] if reason else None,
        price=price.format(first[_E_PRICE]) if is_limit else None,
        quantity=quantity.format(lots),
        filled_quantity=quantity.format(filled),
        open_quantity=quantity.format(left),
        average_price=format_ratio(price, notional, filled) if filled else None,
        created_at=time,
        updated_at=time,
        fills=fills,
    )


def unlisted_order(request: PlaceOrder, order_id: int) -> PlacedOrder:
    """Give an order that was placed once and has left the order history since: what the request says of it."""
    return PlacedOrder(
        order_id=str(order_id),
        client_order_id=request.client_order_id,
        symbol=request.symbol,
        side=request.side,
        order_type=request.order_type,
        time_in_force=request.time_in_force or ("GTC" if request.order_type == "limit" else "IOC"),
        post_only=request.post_only,
        status="unlisted",
        reason=None,
        price=request.price,
        quantity=request.quantity,
        filled_quantity=None,
        open_quantity=None,
        average_price=None,
        created_at=None,
        updated_at=None,
        fills=[],
    )


def fill(instrument: Instrument, event: Row) -> Fill:
    """Give a MAKER_FILL or TAKER_FILL event as an execution."""
    return Fill(
        trade_id=str(event[_E_REF]),
        order_id=str(event[_E_ORDER]),
        symbol=instrument.symbol,
        side=_SIDE[event[_E_SIDE]],
        price=instrument.price.format(event[_E_PRICE]),
        quantity=instrument.quantity.format(event[_E_QUANTITY]),
        liquidity="maker" if event[_E_KIND] == _MAKER else "taker",
        time=format_time(event[_E_TIME]),
    )


def order_fields(table: InstrumentTable, row: Any) -> dict[str, Any]:
    """Give the fields of an ORDER row (as a tuple) as `Order` has them."""
    instrument = table[row[_O["instrument"]]]
    lots, filled, status = row[_O["quantity"]], row[_O["filled"]], row[_O["status"]]
    live = status in (Status.OPEN, Status.PARTIALLY_FILLED)
    reason = row[_O["reason"]]
    client_id = row[_O["client_id"]]
    is_limit = row[_O["order_type"]] == OrderType.LIMIT
    return {
        "order_id": str(row[_O["order_id"]]),
        "client_order_id": client_id.decode("ascii", "replace") if client_id else None,
        "symbol": instrument.symbol,
        "side": _SIDE.get(row[_O["side"]], "buy"),
        "order_type": _TYPE.get(row[_O["order_type"]], "limit"),
        "time_in_force": _TIME.get(row[_O["time_in_force"]], "GTC"),
        "post_only": bool(row[_O["flags"]] & _POST_ONLY),
        "status": STATUS_NAMES[status],
        "reason": reason_name(reason) if reason else None,
        "price": instrument.price.format(row[_O["price"]]) if is_limit else None,
        "quantity": instrument.quantity.format(lots),
        "filled_quantity": instrument.quantity.format(filled),
        "open_quantity": instrument.quantity.format(lots - filled if live else 0),
        "average_price": format_ratio(instrument.price, row[_O["notional"]], filled) if filled else None,
        "created_at": format_time(row[_O["created"]]),
        "updated_at": format_time(row[_O["updated"]]),
    }


def order(table: InstrumentTable, row: Any) -> Order:
    """Give an ORDER row (as a tuple) as an order."""
    return Order(**order_fields(table, row))


def orders(table: InstrumentTable, rows: NDArray[Any]) -> list[Order]:
    """Give ORDER rows as orders."""
    return [order(table, row) for row in rows.tolist()]


def executions(table: InstrumentTable, rows: NDArray[Any]) -> list[Fill]:
    """Give fill events as executions."""
    return [fill(table[row[_E_INSTRUMENT]], row) for row in rows.tolist()]


def position(instrument: Instrument, row: Row, twice_mid: int | None) -> Position:
    """Give a POSITION row (as a tuple) with its value against the mid, given as bid + ask in ticks."""
    lots, cost = row[_P["quantity"]], row[_P["cost"]]
    unrealized = None
    if twice_mid is not None:
        difference = lots * twice_mid - 2 * cost
        unrealized = instrument.format_notional(difference // 2 if difference >= 0 else -(-difference // 2))
    return Position(
        symbol=instrument.symbol,
        quantity=instrument.quantity.format(lots),
        average_price=format_ratio(instrument.price, cost, lots) if lots else None,
        mid_price=format_ratio(instrument.price, twice_mid, 2) if twice_mid is not None else None,
        unrealized=unrealized,
        realized=instrument.format_notional(row[_P["realized"]]),
    )


def book(instrument: Instrument, seq: int, bids: NDArray[Any], asks: NDArray[Any]) -> Book:
    """Give the levels of a book (int64 rows of ticks, lots, orders; best first)."""
    price, quantity = instrument.price.format, instrument.quantity.format
    sides = [[Level(price(t), quantity(q), n) for t, q, n in side.tolist()] for side in (bids, asks)]
    return Book(symbol=instrument.symbol, seq=seq, bids=sides[0], asks=sides[1])


def symbol_info(instrument: Instrument) -> SymbolInfo:
    """Give an instrument with its steps and limits."""
    return SymbolInfo(
        symbol=instrument.symbol,
        index=instrument.index,
        tick_size=instrument.price.text,
        lot_size=instrument.quantity.text,
        price_low=instrument.price.format(instrument.price_low),
        price_high=instrument.price.format(instrument.price_high),
        max_quantity=instrument.quantity.format(instrument.max_quantity),
        max_notional=instrument.format_notional(instrument.max_notional),
        max_position=instrument.quantity.format(instrument.max_position),
        collar_bps=instrument.collar_bps,
        depth=instrument.depth,
    )
