"""Risk limits between JSON and SET_LIMIT commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvops.engine.gateway import commands
from tvops.engine.gateway.problems import refuse
from tvops.engine.gateway.schemas import RiskLimits
from tvops.engine.instruments import InstrumentTable
from tvops.engine.records import ALL_INSTRUMENTS, Limit

if TYPE_CHECKING:
    from tvops.engine.matching.engine import Engine

_MAX_NOTIONAL = 1 << 62
_PER_INSTRUMENT = ("max_order_quantity", "max_order_notional", "max_position", "collar_bps")


def pack_limits(table: InstrumentTable, limits: RiskLimits) -> bytes:
    """Pack the SET_LIMIT commands for what ``limits`` gives.

    Raises:
        ProblemError: a limit needs a symbol or must have none, or its value is none that the instrument can have.
    """
    given = [name for name in (*_PER_INSTRUMENT, "max_open_orders") if getattr(limits, name) is not None]
    if not given:
        raise refuse("missing_field", "there is no limit in the request")
    account = limits.account or 0
    if limits.symbol is None and any(name in _PER_INSTRUMENT for name in given):
        raise refuse("missing_field", f"symbol is missing: {given[0]} is a limit of an instrument", "symbol")
    if limits.collar_bps is not None and account:
        raise refuse("invalid_field", "collar_bps: is a limit of the instrument, not of an account", "collar_bps")
    packed = []
    if limits.max_open_orders is not None:
        limit = Limit.MAX_OPEN_ORDERS
        packed.append(commands.set_limit(account, ALL_INSTRUMENTS, limit, limits.max_open_orders))
    if limits.symbol is not None:
        instrument = commands.find_instrument(table, limits.symbol)
        values = {
            Limit.MAX_ORDER_QUANTITY: _lots(table, limits, "max_order_quantity"),
            Limit.MAX_POSITION: _lots(table, limits, "max_position"),
            Limit.MAX_ORDER_NOTIONAL: _notional(table, limits),
            Limit.COLLAR: limits.collar_bps,
        }
        packed += [commands.set_limit(account, instrument.index, k, v) for k, v in values.items() if v is not None]
    return b"".join(packed)


def read_limits(table: InstrumentTable, engine: Engine, account: int | None) -> list[RiskLimits]:
    """Give the limits in force: those for everybody (None), or those of one account."""
    number = account or 0
    limits = [
        RiskLimits(
            account=account,
            max_open_orders=engine.limit(Limit.MAX_OPEN_ORDERS, number) or None,
        )
    ]
    for instrument in table.all:
        lots, most, held = (
            engine.limit(kind, number, instrument.index)
            for kind in (Limit.MAX_ORDER_QUANTITY, Limit.MAX_ORDER_NOTIONAL, Limit.MAX_POSITION)
        )
        collar = engine.limit(Limit.COLLAR, 0, instrument.index) if not number else 0
        limits.append(
            RiskLimits(
                account=account,
                symbol=instrument.symbol,
                max_order_quantity=instrument.quantity.format(lots) if lots else None,
                max_order_notional=instrument.format_notional(most) if most else None,
                max_position=instrument.quantity.format(held) if held else None,
                collar_bps=collar or None,
            )
        )
    empty = (RiskLimits(account=account), *(RiskLimits(account=account, symbol=i.symbol) for i in table.all))
    return [limit for limit in limits if limit not in empty]


def _lots(table: InstrumentTable, limits: RiskLimits, name: str) -> int | None:
    text: str | None = getattr(limits, name)
    if text is None or limits.symbol is None:
        return None
    return commands.parse_quantity(table.by_symbol[limits.symbol], text, name)


def _notional(table: InstrumentTable, limits: RiskLimits) -> int | None:
    """Give the largest whole number of ticks x lots that is not above the limit."""
    if limits.max_order_notional is None or limits.symbol is None:
        return None
    instrument = table.by_symbol[limits.symbol]
    name = "max_order_notional"
    places = instrument.price.places + instrument.quantity.places
    whole, _, fraction = limits.max_order_notional.partition(".")
    if not (whole.isascii() and whole.isdigit() and (not fraction or (fraction.isascii() and fraction.isdigit()))):
        raise refuse(
            "invalid_quantity", f"{name}: {limits.max_order_notional!r} is not a plain decimal number", name
        )
    units = int(whole + fraction[:places].ljust(places, "0"))
    notional = units // (instrument.price.units * instrument.quantity.units)
    if notional > _MAX_NOTIONAL:
        raise refuse(
            "invalid_quantity", f"{name}: {limits.max_order_notional} is larger than any order can be", name
        )
    return notional
