"""Instruments: their table, and the exact way between decimal strings and ticks and lots."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from tvops.errors import UsageError
from tvops.yaml_lines import load_yaml

MAX_LADDER_TICKS = 1 << 24
MAX_QUANTITY_LOTS = 1 << 38
"""With prices below 2**24 ticks this keeps price x quantity inside an int64."""

MAX_INSTRUMENTS = 64
_DECIMAL = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?", re.ASCII)
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9.\-]{0,19}", re.ASCII)


class DecimalError(ValueError):
    """A price or a quantity is not a number that the instrument can have; the message says why."""


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of the instruments file."""

    symbol: str
    tick_size: str
    lot_size: str
    price_low: str
    price_high: str
    max_quantity: str
    max_notional: str
    max_position: str
    sim_price: str
    collar_bps: int = 1000
    depth: int = 50
    significance: int = 0
    feeds: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Step:
    """A tick or lot size as an exact ratio, and how to write its multiples."""

    name: str
    text: str
    units: int = field(init=False)  # the step, in units of 10**-places
    places: int = field(init=False)

    def __post_init__(self) -> None:
        step = Decimal(self.text)
        if not step.is_finite() or step <= 0:
            raise DecimalError(f"{self.name} {self.text} is not above 0")
        exponent = step.normalize().as_tuple().exponent
        assert isinstance(exponent, int)
        places = max(0, -exponent)
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "units", int(step.scaleb(places)))

    def parse(self, text: str) -> int:
        """Give the whole number of steps that ``text`` is; raise DecimalError where it is none."""
        if not _DECIMAL.fullmatch(text):
            raise DecimalError(f"{text[:40]!r} is not a plain decimal number")
        whole, _, fraction = text.partition(".")
        fraction = fraction.rstrip("0")
        if len(fraction) > self.places:
            raise DecimalError(f"{text} is not a multiple of the {self.name} {self.text}")
        units = int(whole + fraction.ljust(self.places, "0"))
        steps, rest = divmod(units, self.units)
        if rest:
            raise DecimalError(f"{text} is not a multiple of the {self.name} {self.text}")
        return steps

    def format(self, steps: int) -> str:
        """Write ``steps`` as a decimal string, exactly."""
        return format_scaled(steps * self.units, self.places)


def format_scaled(units: int, places: int) -> str:
    """Write ``units`` x 10**-places as a decimal string without trailing zeros cut off."""
    sign = "-" if units < 0 else ""
    digits = str(abs(units))
    if not places:
        return sign + digits
    digits = digits.rjust(places + 1, "0")
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One tradable thing; `index` is its number in records."""

    index: int
    symbol: str
    price: Step
    quantity: Step
    price_low: int  # ticks
    price_high: int  # ticks
    max_quantity: int  # lots
    max_notional: int  # ticks x lots
    max_position: int  # lots
    collar_bps: int
    depth: int
    significance: int  # ticks
    sim_price: int  # ticks
    feeds: dict[str, str]

    @property
    def ladder_ticks(self) -> int:
        """How many ticks the price band spans, both ends counted."""
        return self.price_high - self.price_low + 1

    def format_notional(self, notional: int) -> str:
        """Write ticks x lots as a decimal string in the quote currency."""
        return format_scaled(
            notional * self.price.units * self.quantity.units, self.price.places + self.quantity.places
        )


class InstrumentTable:
    """All instruments of a stack, by index and by symbol."""

    def __init__(self, instruments: list[Instrument]) -> None:
        self.all = instruments
        self.by_symbol = {instrument.symbol: instrument for instrument in instruments}

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, index: int) -> Instrument:
        return self.all[index]

    def by_feed(self, feed: str) -> dict[str, Instrument]:
        """Give the instruments that ``feed`` (an exchange) has, by their name there."""
        return {i.feeds[feed]: i for i in self.all if feed in i.feeds}

    def scale_digest(self, index: int) -> int:
        """Give a 63-bit number that changes when a tick means another price or a lot another quantity."""
        instrument = self.all[index]
        text = f"{instrument.symbol} {instrument.price.text} {instrument.quantity.text}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def load_instruments(path: Path | None = None) -> InstrumentTable:
    """Read the instruments file, by default the one that ships with tvops.

    Raises:
        UsageError: the file cannot be read, or an entry is wrong; names the file, the symbol and the key.
    """
    path = path or Path(__file__).parent.parent / "instruments.yaml"
    try:
        rows = msgspec.convert(_entries(load_yaml(path).value), list[_Row])
    except UsageError as error:  # it names the path and the line
        raise UsageError(f"instruments file {error}") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"instruments file {path}: {error}") from None
    if not 1 <= len(rows) <= MAX_INSTRUMENTS:
        raise UsageError(f"instruments file {path}: has {len(rows)} instruments, needs 1 to {MAX_INSTRUMENTS}")
    table: list[Instrument] = []
    for index, row in enumerate(rows):
        if any(i.symbol == row.symbol for i in table):
            raise UsageError(f"instruments file {path}: symbol {row.symbol} stands twice")
        try:
            table.append(_instrument(index, row))
        except (DecimalError, ArithmeticError) as error:
            raise UsageError(f"instruments file {path}: {row.symbol}: {error}") from None
    return InstrumentTable(table)


def _entries(data: Any) -> Any:
    if not isinstance(data, dict) or set(data) != {"instruments"}:
        raise msgspec.ValidationError("needs exactly one top-level key, instruments")
    return data["instruments"]


def _instrument(index: int, row: _Row) -> Instrument:
    if not _SYMBOL.fullmatch(row.symbol):
        raise DecimalError("symbol must be 1 to 20 of A-Z 0-9 . and -")
    price, quantity = Step("tick size", row.tick_size), Step("lot size", row.lot_size)
    notional = Decimal(row.max_notional) / (Decimal(row.tick_size) * Decimal(row.lot_size))
    instrument = Instrument(
        index=index,
        symbol=row.symbol,
        price=price,
        quantity=quantity,
        price_low=price.parse(row.price_low),
        price_high=price.parse(row.price_high),
        max_quantity=quantity.parse(row.max_quantity),
        max_notional=int(notional),
        max_position=quantity.parse(row.max_position),
        collar_bps=row.collar_bps,
        depth=row.depth,
        significance=row.significance,
        sim_price=price.parse(row.sim_price),
        feeds=row.feeds,
    )
    if not 1 <= instrument.price_low <= instrument.sim_price <= instrument.price_high < MAX_LADDER_TICKS:
        raise DecimalError(
            f"needs 1 tick <= price_low <= sim_price <= price_high < {MAX_LADDER_TICKS} ticks of {row.tick_size}"
        )
    if not 1 <= instrument.max_quantity <= MAX_QUANTITY_LOTS:
        raise DecimalError(f"max_quantity must be 1 to {MAX_QUANTITY_LOTS} lots of {row.lot_size}")
    if not 1 <= instrument.max_position <= MAX_QUANTITY_LOTS or not 0 < instrument.max_notional < 1 << 62:
        raise DecimalError("max_position or max_notional is out of range")
    if not (0 <= row.collar_bps <= 10_000 and 1 <= row.depth <= 1000 and 0 <= row.significance <= 1_000_000):
        raise DecimalError("collar_bps (0-10000), depth (1-1000) or significance (0-1000000) is out of range")
    return instrument
