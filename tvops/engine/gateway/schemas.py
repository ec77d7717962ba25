"""The JSON contract of the gateway: what requests may hold, what answers hold.

Prices and quantities are decimal strings, ids are strings (they exceed what a JSON number holds exactly in a
browser), times are RFC 3339 strings in UTC with microseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from tvops.engine.records import CLIENT_ID_SIZE

MAX_BATCH = 1000
MAX_LISTED = 1000
END = r"$(?!\n)"  # Python's $ would also match in front of a newline
CLIENT_ID_PATTERN = f"^[!-~]{{1,{CLIENT_ID_SIZE}}}{END}"

Decimal = Annotated[str, Meta(min_length=1, max_length=41, examples=["0.5"], description="Decimal as a string.")]
ClientId = Annotated[
    str, Meta(pattern=CLIENT_ID_PATTERN, description="1 to 36 printable ASCII characters, no space.")
]
Symbol = Annotated[str, Meta(min_length=1, max_length=20, examples=["BTC-USDT"])]
OrderId = Annotated[str, Meta(pattern="^[0-9]{1,19}" + END, examples=["1048576"])]
Limit = Annotated[int, Meta(ge=1, le=MAX_LISTED)]
Side = Literal["buy", "sell"]
OrderType = Literal["limit", "market"]
TimeInForce = Literal["GTC", "IOC", "FOK"]
SelfTrade = Literal["cancel_resting", "cancel_incoming", "cancel_both", "allow"]
Status = Literal["open", "partially_filled", "filled", "cancelled", "rejected", "unlisted"]
Account = Annotated[int, Meta(ge=1, le=4095)]


class PlaceOrder(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A new order."""

    symbol: Symbol
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    """Limit orders need one, market orders have none."""
    time_in_force: TimeInForce | None = None
    """GTC unless given; market orders are IOC."""
    post_only: bool = False
    """Refuse the order where it would trade at once."""
    self_trade: SelfTrade = "cancel_resting"
    """What happens when the order would trade with an order of the same account."""
    client_order_id: ClientId | None = None
    """Makes the order idempotent: sent again it is answered with the first answer."""


class AmendOrder(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What changes of an open order; a field that is not given stays."""

    price: Decimal | None = None
    quantity: Decimal | None = None
    """New total quantity, what is filled already included."""


class Fill(Struct, frozen=True, gc=False):
    """One execution of an order."""

    trade_id: str
    order_id: str
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    liquidity: Literal["maker", "taker"]
    time: str


class Order(Struct, frozen=True, gc=False):
    """An order as it stands. `unlisted`: it was placed once and has left the order history since."""

    order_id: str
    client_order_id: str | None
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    post_only: bool
    status: Status
    reason: str | None
    """Why it was cancelled or rejected."""
    price: Decimal | None
    quantity: Decimal
    filled_quantity: Decimal | None
    open_quantity: Decimal | None
    average_price: Decimal | None
    created_at: str | None
    updated_at: str | None


class PlacedOrder(Order, frozen=True, gc=False):
    """An order as it stands after it was taken, with what it traded at once."""

    fills: list[Fill]


class Problem(Struct, frozen=True, gc=False, omit_defaults=True):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    order_id: str | None = None
    client_order_id: str | None = None
    field: str | None = None


class BatchItem(Struct, frozen=True, gc=False, omit_defaults=True):
    """Result of one order of a batch: its status as if it had been sent alone, and the order or the problem."""

    status: int
    order: PlacedOrder | None = None
    problem: Problem | None = None
    replayed: bool = False


class BatchResult(Struct, frozen=True, gc=False):
    """Results in the order of the request."""

    results: list[BatchItem]


class OrderList(Struct, frozen=True, gc=False):
    """Orders, newest first; `next` is the `before` of the page that follows."""

    orders: list[Order]
    next: str | None


class ExecutionList(Struct, frozen=True, gc=False):
    """Executions, newest first; `next` is the `before` of the page that follows."""

    executions: list[Fill]
    next: str | None


class MassCancelResult(Struct, frozen=True, gc=False):
    """How many orders were cancelled, and which."""

    cancelled: int
    order_ids: list[str]


class Position(Struct, frozen=True, gc=False):
    """Position in one instrument; `unrealized` is against the middle of our book, null where there is none."""

    symbol: str
    quantity: Decimal
    average_price: Decimal | None
    mid_price: Decimal | None
    unrealized: Decimal | None
    realized: Decimal


class PositionList(Struct, frozen=True, gc=False):
    """Positions of the account."""

    positions: list[Position]


class Level(Struct, frozen=True, gc=False, array_like=True):
    """One price of a book: price, quantity, number of orders."""

    price: Decimal
    quantity: Decimal
    orders: int


class Book(Struct, frozen=True, gc=False):
    """Levels of our book, best first. `seq` is the last command that the engine has applied."""

    symbol: str
    seq: int
    bids: list[Level]
    asks: list[Level]


class SymbolInfo(Struct, frozen=True, gc=False):
    """What can be traded, and in which steps and limits."""

    symbol: str
    index: int
    tick_size: Decimal
    lot_size: Decimal
    price_low: Decimal
    price_high: Decimal
    max_quantity: Decimal
    max_notional: Decimal
    max_position: Decimal
    collar_bps: int
    depth: int


class SymbolList(Struct, frozen=True, gc=False):
    """All instruments."""

    symbols: list[SymbolInfo]


class PageConfig(Struct, frozen=True):
    """What the chart page needs to find its way."""

    version: str
    gateway_port: int
    market_port: int
    feed: str
    simulated: bool
    keys_required: bool
    symbols: list[str]


class PartHealth(Struct, frozen=True):
    """State of one part."""

    state: Literal["ok", "starting", "degraded", "failed"]
    detail: str


class HealthReport(Struct, frozen=True):
    """State of the gateway and of everything that it needs."""

    status: Literal["ok", "starting", "degraded", "failed"]
    services: dict[str, PartHealth]


class RiskLimits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits of an account and/or an instrument; null or absent: not set here."""

    account: Account | None = None
    """None: every account that has no limit of its own."""
    symbol: Symbol | None = None
    max_order_quantity: Decimal | None = None
    max_order_notional: Decimal | None = None
    max_position: Decimal | None = None
    max_open_orders: Annotated[int, Meta(ge=0, le=1 << 30)] | None = None
    collar_bps: Annotated[int, Meta(ge=0, le=10_000)] | None = None


class RiskLimitList(Struct, frozen=True):
    """Every limit in force."""

    limits: list[RiskLimits]


class KillSwitch(Struct, frozen=True, forbid_unknown_fields=True):
    """Cancel everything of an account (or of all) and refuse new orders, or lift that."""

    account: Account | Literal["all"]
    active: bool


class Halt(Struct, frozen=True, forbid_unknown_fields=True):
    """Refuse new orders in an instrument, or lift that."""

    symbol: Symbol
    active: bool


class CommandResult(Struct, frozen=True):
    """How many orders the command ended."""

    ended_orders: int


class OrdersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Filters of the order list."""

    status: Literal["open", "partially_filled", "filled", "cancelled", "rejected", "live"] | None = None
    symbol: Symbol | None = None
    limit: Limit = 100
    before: OrderId | None = None


class ExecutionsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Filters of the execution list."""

    symbol: Symbol | None = None
    limit: Limit = 100
    before: Annotated[str, Meta(pattern="^[0-9]{1,20}" + END)] | None = None


class CancelQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What a mass cancel is narrowed to."""

    symbol: Symbol | None = None
    side: Side | None = None


class BookQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How many levels a side."""

    depth: Annotated[int, Meta(ge=1, le=1000)] = 50


class LimitsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose limits; none: those for everybody."""

    account: Account | None = None


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


encode = msgspec.json.Encoder().encode
"""Writes any of these as JSON."""
