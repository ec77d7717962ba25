"""The operations of the API: a call in, an answer out, or later through order entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import msgspec

import tvops
from tvops.engine.gateway import commands, schemas, views
from tvops.engine.gateway.calls import Answer, Call, decode_body, decode_query
from tvops.engine.gateway.entry import OrderEntry
from tvops.engine.gateway.openapi import build_openapi
from tvops.engine.gateway.orders import LIVE, find_order
from tvops.engine.gateway.problems import decoding_problem, refuse
from tvops.engine.gateway.risk import pack_limits, read_limits
from tvops.engine.gateway.schemas import encode
from tvops.engine.records import ALL_ACCOUNTS, Status
from tvops.engine.telemetry import exposition
from tvops.engine.telemetry.service import TelemetryService
from tvops.settings import Settings

if TYPE_CHECKING:
    from tvops.engine.ledger.service import EngineService

_PLACE = msgspec.json.Decoder(schemas.PlaceOrder)
_BATCH = msgspec.json.Decoder(list[msgspec.Raw])
_AMEND = msgspec.json.Decoder(schemas.AmendOrder)
_LIMITS = msgspec.json.Decoder(schemas.RiskLimits)
_KILL = msgspec.json.Decoder(schemas.KillSwitch)
_HALT = msgspec.json.Decoder(schemas.Halt)
_ALL_EXECUTIONS = 1 << 16
_STATUSES: dict[str, tuple[int, ...]] = {s.name.lower(): (s.value,) for s in Status} | {"live": LIVE}

Report = Callable[[], schemas.HealthReport]


class Api:
    """One method for every route; its name is `Route.handler`."""

    def __init__(
        self,
        settings: Settings,
        engine: EngineService,
        entry: OrderEntry,
        health: Report,
        stats: Callable[[], dict[str, Any]],
        telemetry: TelemetryService,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._table = engine.table
        self._entry = entry
        self._health, self._stats, self._telemetry = health, stats, telemetry
        self._symbols = encode(schemas.SymbolList([views.symbol_info(i) for i in self._table.all]))
        self._openapi = msgspec.json.encode(build_openapi())

    def place(self, call: Call) -> None:
        """Place an order."""
        order = decode_body(call.body, _PLACE)
        self._entry.place(call.account, order, call.received, call.answer)

    def place_batch(self, call: Call) -> None:
        """Place a list of orders."""
        items = decode_body(call.body, _BATCH)
        if not 0 < len(items) <= schemas.MAX_BATCH:
            raise refuse("invalid_field", f"a batch has 1 to {schemas.MAX_BATCH} orders, not {len(items)}")
        orders: list[schemas.PlaceOrder | schemas.Problem] = []
        for item in items:
            try:
                orders.append(_PLACE.decode(item))
            except (ValueError, RecursionError) as error:
                orders.append(decoding_problem(error))
        self._entry.place_batch(call.account, orders, call.received, call.answer)

    def amend(self, call: Call) -> None:
        """Change an order."""
        self._entry.amend(call.account, call.name(), decode_body(call.body, _AMEND), call.received, call.answer)

    def cancel(self, call: Call) -> None:
        """Cancel an order."""
        decode_query(call, schemas.NoQuery)
        self._entry.cancel(call.account, call.name(), call.received, call.answer)

    def mass_cancel(self, call: Call) -> None:
        """Cancel many orders."""
        query = decode_query(call, schemas.CancelQuery)
        self._entry.mass_cancel(call.account, query.symbol, query.side, call.received, call.answer)

    def get_order(self, call: Call) -> Answer:
        """Show an order."""
        decode_query(call, schemas.NoQuery)
        row = find_order(self._engine.orders, call.account, call.name())
        return Answer(200, encode(views.order(self._table, row.item())))

    def list_orders(self, call: Call) -> Answer:
        """Show orders."""
        query = decode_query(call, schemas.OrdersQuery)
        rows = self._engine.orders.select(
            call.account,
            status=_STATUSES[query.status] if query.status else None,
            instrument=self._instrument(query.symbol),
            limit=query.limit,
            before=int(query.before) if query.before is not None else None,
        )
        orders = views.orders(self._table, rows)
        more = orders[-1].order_id if len(orders) == query.limit else None
        return Answer(200, encode(schemas.OrderList(orders, more)))

    def executions(self, call: Call) -> Answer:
        """Show executions."""
        query = decode_query(call, schemas.ExecutionsQuery)
        limit = query.limit if query.before is None else _ALL_EXECUTIONS
        rows = self._engine.orders.executions(call.account, self._instrument(query.symbol), limit)
        if query.before is not None:
            rows = rows[rows["ref"] < int(query.before)][: query.limit]
        more = str(rows["ref"][-1]) if len(rows) == query.limit else None
        return Answer(200, encode(schemas.ExecutionList(views.executions(self._table, rows), more)))

    def positions(self, call: Call) -> Answer:
        """Show the positions."""
        decode_query(call, schemas.NoQuery)
        return Answer(200, encode(schemas.PositionList(self.positions_of(call.account))))

    def positions_of(self, account: int) -> list[schemas.Position]:
        """Give the positions of an account at the present middle of our books."""
        rows = self._engine.orders.positions(account).tolist()
        return [views.position(self._table[row[1]], row, self._twice_mid(row[1])) for row in rows]

    def book(self, call: Call) -> Answer:
        """Show a book."""
        query = decode_query(call, schemas.BookQuery)
        instrument = commands.find_instrument(self._table, call.name())
        engine = self._engine.engine
        bids, asks = engine.depth(instrument.index, query.depth)
        return Answer(200, encode(views.book(instrument, engine.seq, bids, asks)))

    def symbols(self, call: Call) -> Answer:
        """Show the instruments."""
        decode_query(call, schemas.NoQuery)
        return Answer(200, self._symbols)

    def config(self, call: Call) -> Answer:
        """Show what the page needs."""
        settings = self._settings
        names = [i.symbol for i in self._table.all if not settings.symbols or i.symbol in settings.symbols]
        page = schemas.PageConfig(
            version=tvops.__version__,
            gateway_port=settings.gateway_port,
            market_port=settings.market_port,
            feed=_feed_name(settings.feed),
            simulated=settings.feed == "sim" or settings.feed.startswith("synthetic"),
            keys_required=settings.keys_required,
            symbols=names,
        )
        return Answer(200, encode(page))

    def limits(self, call: Call) -> Answer:
        """Show the limits."""
        query = decode_query(call, schemas.LimitsQuery)
        return Answer(
            200, encode(schemas.RiskLimitList(read_limits(self._table, self._engine.engine, query.account)))
        )

    def set_limits(self, call: Call) -> None:
        """Set limits."""
        packed = pack_limits(self._table, decode_body(call.body, _LIMITS))
        self._entry.control(packed, call.received, call.answer)

    def kill(self, call: Call) -> None:
        """Stop an account, or lift that."""
        switch = decode_body(call.body, _KILL)
        account = ALL_ACCOUNTS if switch.account == "all" else switch.account
        self._entry.control(commands.kill(account, switch.active), call.received, call.answer)

    def halt(self, call: Call) -> None:
        """Halt an instrument, or lift that."""
        switch = decode_body(call.body, _HALT)
        instrument = commands.find_instrument(self._table, switch.symbol)
        self._entry.control(commands.halt(instrument.index, switch.active), call.received, call.answer)

    def health(self, call: Call) -> Answer:
        """Show the state of every part."""
        report = self._health()
        return Answer(200 if report.status == "ok" else 503, encode(report))

    def stats(self, call: Call) -> Answer:
        """Show the figures."""
        return Answer(200, msgspec.json.encode(self._stats()))

    def metrics(self, call: Call) -> Answer:
        """Show the figures for Prometheus."""
        return _typed(*exposition.answer(self._telemetry.document(), call.accept))

    def telemetry(self, call: Call) -> Answer:
        """Show the telemetry of this process."""
        admin = call.principal is not None and call.principal.admin
        return _typed(*self._telemetry.encoded(call.accept, admin))

    def openapi(self, call: Call) -> Answer:
        """Show the description of the API."""
        return Answer(200, self._openapi)

    def _instrument(self, symbol: str | None) -> int | None:
        return commands.find_instrument(self._table, symbol).index if symbol is not None else None

    def _twice_mid(self, instrument: int) -> int | None:
        bids, asks = self._engine.engine.depth(instrument, 1)
        return int(bids[0, 0] + asks[0, 0]) if len(bids) and len(asks) else None


def _typed(body: bytes, kind: str) -> Answer:
    return Answer(200, body, b"content-type: %b\r\n" % kind.encode())


def _feed_name(feed: str) -> str:
    """Give the feed as clients see it: of a replay the names of its files, not where they are on this machine."""
    kind, colon, rest = feed.partition(":")
    return kind + colon + ",".join(PurePath(part).name for part in rest.split(","))
