"""Which order comes next: a mix of new, amend, cancel and IOC by shares, all far below the market."""

from __future__ import annotations

import secrets
from collections import deque
from typing import Annotated, Final

import msgspec
import numpy as np

from tvops.bench.doors.shares import Share, check_shares
from tvops.bench.plan import Traces
from tvops.engine.instruments import DecimalError, Step
from tvops.errors import UsageError

NEW, AMEND, CANCEL, IOC = range(4)
NAMES: Final = ("new", "amend", "cancel", "ioc")

_PATTERN: Final = 1 << 13
_PRICES: Final = 400
"""Ticks over which orders spread."""
_LOTS: Final = 100
RESTING: Final = 1_000
"""Orders that rest at a time where nothing else is wanted: a long run must not meet the account's limit."""

Resting = Annotated[int, msgspec.Meta(ge=1, le=250_000)]


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of the kinds of requests; what is not named has none, and what they add up to does not matter."""

    new: Share = 0
    amend: Share = 0
    cancel: Share = 0
    ioc: Share = 0

    def __post_init__(self) -> None:
        check_shares(self)


USUAL: Final = Mix(new=60, amend=10, cancel=25, ioc=5)


class Symbol(msgspec.Struct, frozen=True):
    """An instrument as `/v1/symbols` has it."""

    symbol: str
    tick_size: str
    lot_size: str
    price_low: str
    price_high: str


class OrderFlow:
    """Decides what each request is, and keeps track of the orders that rest.

    Orders rest at a thousandth of the price band, where nothing trades. An amend or a cancel without an order to
    go for becomes a new order; a new one becomes a cancel where ``resting`` rest already. An order whose fate is
    not known is cancelled afterwards, too.
    """

    def __init__(self, mix: Mix, seed: int, capacity: int, resting: int = RESTING) -> None:
        shares = np.array([mix.new, mix.amend, mix.cancel, mix.ioc], np.float64)
        chance = np.random.default_rng(seed)
        self._pattern = chance.choice(4, size=_PATTERN, p=shares / shares.sum()).astype(np.uint8).tobytes()
        self._about = np.zeros(capacity, np.int64).data  # the order that a request is about, by its number
        self._fresh: deque[int] = deque()
        self._amended: deque[int] = deque()
        self._doubtful: set[int] = set()
        self._most = resting
        self.run = f"bench-{secrets.token_hex(4)}"
        """What the client ids of this run begin with."""

    def use(self, symbol: Symbol) -> None:
        """Take prices and quantities from an instrument."""
        try:
            tick, lot = Step("tick size", symbol.tick_size), Step("lot size", symbol.lot_size)
            low, high = tick.parse(symbol.price_low), tick.parse(symbol.price_high)
        except DecimalError as error:
            raise UsageError(f"{symbol.symbol}: {error}") from None
        base = low + (high - low) // 1000
        self.prices = [tick.format(base + n) for n in range(2 * _PRICES)]
        fixed = f'"symbol":"{symbol.symbol}","side":"buy","order_type":"limit","quantity":"{lot.format(_LOTS)}"'
        self._fixed = fixed.encode()

    def choose(self, number: int) -> int:
        """Give what the request is: NEW, AMEND, CANCEL or IOC."""
        kind = self._pattern[number % _PATTERN]
        resting = len(self._fresh) + len(self._amended)
        if (kind == AMEND and not self._fresh) or (kind == CANCEL and not resting):
            kind = NEW
        if kind == NEW and resting >= self._most:
            kind = CANCEL
        if kind == AMEND:
            self._about[number] = self._fresh.popleft()
        elif kind == CANCEL:
            self._about[number] = (self._amended or self._fresh).popleft()
        else:
            self._about[number] = number
        return kind

    def about(self, number: int) -> str:
        """Give the client id of the order that a request is about."""
        return f"{self.run}-{self._about[number]}"

    def price(self, number: int, kind: int) -> str:
        """Give a price; amends have others than new orders, so that each one changes something."""
        return self.prices[number % _PRICES + (_PRICES if kind == AMEND else 0)]

    def order(self, number: int, kind: int) -> bytes:
        """Give the JSON of a new order (NEW or IOC)."""
        return b'{%b,"price":"%b","time_in_force":"%b","client_order_id":"%b"}' % (
            self._fixed, self.price(number, kind).encode(), b"IOC" if kind == IOC else b"GTC",
            self.about(number).encode(),
        )  # fmt: skip

    def settled(self, number: int, kind: int, status: int) -> None:
        """Note the answer to a request."""
        order = self._about[number]
        if status >= 500 or (status >= 300 and kind in (AMEND, CANCEL)):
            self._doubtful.add(order)
        elif status < 300 and kind == NEW:
            self._fresh.append(order)
        elif status < 300 and kind == AMEND:
            self._amended.append(order)

    def doubt(self, number: int) -> None:
        """Note that it is not known what came of a request."""
        self._doubtful.add(self._about[number])

    def unsent(self, number: int) -> None:
        """Note that a request was never sent: an order that it was about rests; a new one does not."""
        if self._about[number] != number:
            self.doubt(number)

    def traces(self, url: str, count: int | None = None) -> Traces:
        """Say that so many of the orders may rest at an address; None: as many as rest at a time."""
        most = min(self._most, len(self._about)) if count is None else count
        return Traces(most, f"orders with client ids {self.run}-* may still rest at {url}")

    def leftovers(self) -> list[str]:
        """Give the client ids of the orders that rest, or may."""
        return [f"{self.run}-{number}" for number in (*self._fresh, *self._amended, *sorted(self._doubtful))]
