"""A matching engine as plain as it gets: dicts, lists and one pass over them. What the real one must equal."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field

import numpy as np

from tvops.engine.records import ALL_ACCOUNTS, ALL_INSTRUMENTS, EVENT, EventKind, Kind, Limit, Reason, SelfTrade

BUY, SELL = 1, 2
LIMIT, MARKET = 1, 2
GTC, IOC, FOK = 1, 2, 3
UNLIMITED = 1 << 62
SLOT_BITS = 20


@dataclass
class Order:
    id: int
    account: int
    instrument: int
    side: int
    price: int
    left: int
    post_only: bool = False


@dataclass
class Book:
    low: int
    size: int
    digest: int
    levels: dict = field(default_factory=lambda: {BUY: {}, SELL: {}})  # price: its orders, oldest first
    last: int = 0
    halted: bool = False
    collar: int | None = None
    limits: dict = field(default_factory=dict)
    top: dict = field(default_factory=lambda: {BUY: (0, 0), SELL: (0, 0)})

    def queue(self, side):
        """The orders of a side, best price first, then oldest first."""
        prices = sorted(self.levels[side], reverse=side == BUY)
        return [order for price in prices for order in self.levels[side][price]]

    def best(self, side):
        if not self.levels[side]:
            return (0, 0)
        price = (max if side == BUY else min)(self.levels[side])
        return (price, sum(o.left for o in self.levels[side][price]))

    def reference(self):
        if self.last:
            return self.last
        prices = [self.best(side)[0] for side in (BUY, SELL) if self.levels[side]]
        return sum(prices) // len(prices) if prices else 0


class Model:
    def __init__(self, max_orders=1 << 18, max_accounts=4096, max_keys=1 << 18):
        self.max_orders, self.max_accounts, self.max_keys = max_orders, max_accounts, max_keys
        self.books, self.live, self.positions = {}, {}, {}
        self.of_account = defaultdict(dict)
        self.account_limits, self.open_limits = {}, {}
        self.exempt, self.killed, self.all_killed = set(), set(), False
        self.keys = OrderedDict()
        self.free, self.high, self.orders, self.trades = [], 0, 0, 0
        self.rows = []

    def apply(self, commands):
        self.rows = []
        for command in commands:
            self.one(command)
        events = np.zeros(len(self.rows), EVENT)
        for i, row in enumerate(self.rows):
            for name, value in row.items():
                events[i][name] = value
        return events

    def emit(self, kind, **fields):
        self.rows.append({"command_seq": self.seq, "time": self.time, "kind": kind, **fields})

    def one(self, c):
        self.seq, self.time = c["seq"], c["time"]
        kind, self.ref = int(c["kind"]), c["key_low"]
        order_id = int(c["order_id"])
        whom = {"account": c["account"], "instrument": c["instrument"], "side": c["side"], "ref": self.ref}
        key = (int(c["key_high"]), int(c["key_low"]))
        if key[0] and key in self.keys:
            first_id, first_reason = self.keys[key]
            self.emit(EventKind.DUPLICATE, order_id=first_id, reason=first_reason, **whom)
            return
        if kind == Kind.NEW:
            self.orders += 1
            order_id = self.orders << SLOT_BITS | self.next_slot()
            reason = self.new(c, order_id)
        elif kind in (Kind.AMEND, Kind.CANCEL):
            reason = self.change(c, kind, order_id)
        else:
            reason = self.control(c, kind, whom)
        if reason:
            self.emit(
                EventKind.REJECTED,
                order_id=order_id,
                price=c["price"],
                quantity=c["quantity"],
                reason=reason,
                **whom,
            )
        for instrument in sorted(self.books):
            book = self.books[instrument]
            for side in (BUY, SELL):
                top = book.best(side)
                if top != book.top[side]:
                    book.top[side] = top
                    self.emit(EventKind.TOP, price=top[0], quantity=top[1], instrument=instrument, side=side)
        if key[0]:
            answered = order_id if kind in (Kind.NEW, Kind.AMEND, Kind.CANCEL) else 0
            self.keys[key] = (answered, reason)
            while len(self.keys) > self.max_keys:
                self.keys.popitem(last=False)

    # slots

    def next_slot(self):
        return self.free[-1] if self.free else self.high + 1

    def take_slot(self):
        if self.free:
            self.free.pop()
        else:
            self.high += 1

    def give_slot(self, order_id):
        self.free.append(order_id & ((1 << SLOT_BITS) - 1))

    # limits

    def resting(self, account, instrument=None, side=None):
        return [
            o
            for o in self.of_account[account].values()
            if instrument in (None, o.instrument) and side in (None, o.side)
        ]

    def limit(self, account, instrument, which):
        own = self.account_limits.get((account, instrument, which), 0)
        return own or self.books[instrument].limits.get(which, 0) or UNLIMITED

    def over_limits(self, account, instrument, side, price, quantity, without=None):
        exempt = account in self.exempt
        if not exempt:
            if quantity > self.limit(account, instrument, Limit.MAX_ORDER_QUANTITY):
                return Reason.MAX_ORDER_QUANTITY
            if price * quantity > self.limit(account, instrument, Limit.MAX_ORDER_NOTIONAL):
                return Reason.MAX_ORDER_NOTIONAL
        held = self.positions.get((account, instrument), 0) * (1 if side == BUY else -1)
        held += sum(o.left for o in self.resting(account, instrument, side) if o is not without)
        most = UNLIMITED if exempt else self.limit(account, instrument, Limit.MAX_POSITION)
        return Reason.MAX_POSITION if held + quantity > most else 0

    def outside_collar(self, account, instrument, side, price):
        book = self.books[instrument]
        if account in self.exempt or not book.reference() or book.collar is None:
            return False
        beyond = (price - book.reference()) * (1 if side == BUY else -1)
        return beyond * 10_000 > book.reference() * book.collar

    def crossed(self, instrument, side, price):
        best = self.books[instrument].best(3 - side)[0]
        return best and (best <= price if side == BUY else best >= price)

    # orders

    def new(self, c, order_id):  # noqa: C901
        price, quantity = int(c["price"]), int(c["quantity"])
        account, instrument, side = int(c["account"]), int(c["instrument"]), int(c["side"])
        order_type, tif, flags = int(c["order_type"]), int(c["time_in_force"]), int(c["flags"])
        if instrument not in self.books:
            return Reason.UNKNOWN_INSTRUMENT
        if not 1 <= account < self.max_accounts:
            return Reason.UNKNOWN_ACCOUNT
        if side not in (BUY, SELL):
            return Reason.BAD_SIDE
        if order_type not in (LIMIT, MARKET) or (order_type == MARKET and flags & 1):
            return Reason.BAD_TYPE
        if tif not in (GTC, IOC, FOK) or (flags & 1 and tif != GTC):
            return Reason.BAD_TIME_IN_FORCE
        if flags > 1 or c["self_trade"] > 3:
            return Reason.BAD_COMMAND
        if not 1 <= quantity <= 1 << 38:
            return Reason.BAD_QUANTITY
        if (order_type == MARKET and price != 0) or (order_type == LIMIT and not 1 <= price < 1 << 24):
            return Reason.BAD_PRICE
        book = self.books[instrument]
        if order_type == LIMIT and not book.low <= price < book.low + book.size:
            return Reason.PRICE_BAND
        if self.all_killed or account in self.killed:
            return Reason.KILLED
        if book.halted:
            return Reason.HALTED
        at_risk = price if order_type == LIMIT else book.reference()
        reason = self.over_limits(account, instrument, side, at_risk, quantity)
        if reason:
            return reason
        rests = order_type == LIMIT and tif == GTC
        if rests and account not in self.exempt:
            most = self.open_limits.get(account, 0) or self.open_limits.get(0, 0) or UNLIMITED
            if len(self.resting(account)) >= most:
                return Reason.MAX_OPEN_ORDERS
        if order_type == LIMIT and self.outside_collar(account, instrument, side, price):
            return Reason.COLLAR
        if rests and flags & 1 and self.crossed(instrument, side, price):
            return Reason.POST_ONLY
        if rests and self.next_slot() > self.max_orders:
            return Reason.BOOK_FULL
        whom = {"order_id": order_id, "account": account, "instrument": instrument, "side": side}
        self.emit(EventKind.ACCEPTED, price=price, quantity=quantity, leaves=quantity, ref=self.ref, **whom)
        order = Order(order_id, account, instrument, side, price, quantity, bool(flags & 1))
        reach = self.reach(order, order_type)
        mode = c["self_trade"]
        if tif == FOK and not self.can_fill(order, reach, mode):
            self.emit(EventKind.CANCELLED, price=price, quantity=quantity, reason=Reason.FILL_OR_KILL, **whom)
            return 0
        if rests:
            self.take_slot()
        self.work(order, reach, mode, rests, order_type == MARKET)
        return 0

    def reach(self, order, order_type):
        """The orders that this one may trade with, in the order it meets them."""
        if order_type == LIMIT and not self.crossed(order.instrument, order.side, order.price):
            return []
        queue = self.books[order.instrument].queue(3 - order.side)
        if order_type == LIMIT:
            return [o for o in queue if (o.price <= order.price if order.side == BUY else o.price >= order.price)]
        return [o for o in queue if not self.outside_collar(order.account, order.instrument, order.side, o.price)]

    def can_fill(self, order, reach, mode):
        available = 0
        for maker in reach:
            if maker.account == order.account and mode != SelfTrade.ALLOW:
                if mode != SelfTrade.CANCEL_RESTING:
                    break
                continue
            available += maker.left
        return available >= order.left

    def on(self, order):
        self.books[order.instrument].levels[order.side].setdefault(order.price, []).append(order)
        self.live[order.id] = self.of_account[order.account][order.id] = order

    def off(self, order):
        levels = self.books[order.instrument].levels[order.side]
        levels[order.price].remove(order)
        if not levels[order.price]:
            del levels[order.price]
        del self.live[order.id], self.of_account[order.account][order.id]

    def end(self, order, reason, ref=0):
        self.emit(
            EventKind.CANCELLED, order_id=order.id, ref=ref, price=order.price, quantity=order.left,
            account=order.account, instrument=order.instrument, side=order.side, reason=reason,
        )  # fmt: skip

    def fill(self, kind, order, price, quantity):
        order.left -= quantity
        signed = quantity if order.side == BUY else -quantity
        place = (order.account, order.instrument)
        self.positions[place] = self.positions.get(place, 0) + signed
        self.emit(
            kind, order_id=order.id, ref=self.trades, price=price, quantity=quantity, leaves=order.left,
            account=order.account, instrument=order.instrument, side=order.side,
        )  # fmt: skip

    def work(self, order, reach, mode, rests, market):  # noqa: C901
        book, entered, stopped = self.books[order.instrument], order.left, False
        for maker in reach:
            if not order.left:
                break
            if maker.account == order.account and mode != SelfTrade.ALLOW:
                if mode != SelfTrade.CANCEL_INCOMING:
                    self.off(maker)
                    self.end(maker, Reason.SELF_TRADE)
                    self.give_slot(maker.id)
                if mode != SelfTrade.CANCEL_RESTING:
                    stopped = True
                    break
                continue
            self.trades += 1
            quantity = min(order.left, maker.left)
            self.fill(EventKind.MAKER_FILL, maker, maker.price, quantity)
            self.fill(EventKind.TAKER_FILL, order, maker.price, quantity)
            book.last = maker.price
            if not maker.left:
                self.off(maker)
                self.give_slot(maker.id)
        if order.left and rests and not stopped:
            self.on(order)
            return
        if rests:
            self.give_slot(order.id)
        if order.left:
            if stopped:
                reason = Reason.SELF_TRADE
            elif market and book.levels[3 - order.side]:
                reason = Reason.COLLAR
            elif order.left == entered:
                reason = Reason.NO_LIQUIDITY
            else:
                reason = Reason.IMMEDIATE_OR_CANCEL
            self.end(order, reason)

    def change(self, c, kind, order_id):  # noqa: C901
        order = self.live.get(order_id)
        if order is None or order.account != c["account"]:
            return Reason.UNKNOWN_ORDER
        if kind == Kind.CANCEL:
            self.off(order)
            self.end(order, Reason.USER, self.ref)
            self.give_slot(order.id)
            return 0
        if c["flags"] > 1 or c["self_trade"] > 3:
            return Reason.BAD_COMMAND
        price, quantity = int(c["price"]), int(c["quantity"])
        if not 0 <= quantity <= 1 << 38:
            return Reason.BAD_QUANTITY
        if not 0 <= price < 1 << 24:
            return Reason.BAD_PRICE
        price, quantity = price or order.price, quantity or order.left
        book = self.books[order.instrument]
        if not book.low <= price < book.low + book.size:
            return Reason.PRICE_BAND
        if (price, quantity) == (order.price, order.left):
            return Reason.NOTHING_TO_AMEND
        post_only = order.post_only or bool(c["flags"] & 1)
        stays = price == order.price and quantity < order.left
        if not stays:
            if book.halted:
                return Reason.HALTED
            reason = self.over_limits(order.account, order.instrument, order.side, price, quantity, order)
            if reason:
                return reason
            if self.outside_collar(order.account, order.instrument, order.side, price):
                return Reason.COLLAR
            if post_only and self.crossed(order.instrument, order.side, price):
                return Reason.POST_ONLY
        self.emit(
            EventKind.AMENDED, order_id=order.id, ref=self.ref, price=price, quantity=quantity, leaves=quantity,
            account=order.account, instrument=order.instrument, side=order.side,
        )  # fmt: skip
        if stays:
            order.left = quantity
            return 0
        self.off(order)
        order.price, order.left, order.post_only = price, quantity, post_only
        self.work(order, self.reach(order, LIMIT), c["self_trade"], True, False)
        return 0

    # everything else

    def control(self, c, kind, whom):  # noqa: C901
        account, instrument, side = int(c["account"]), int(c["instrument"]), int(c["side"])
        price, quantity = int(c["price"]), int(c["quantity"])
        known_instrument = instrument in self.books or instrument == ALL_INSTRUMENTS
        known_account = 1 <= account < self.max_accounts
        ended = []
        if kind == Kind.DEFINE:
            if instrument >= 64:
                return Reason.UNKNOWN_INSTRUMENT
            if not 1 <= price < 1 << 24:
                return Reason.BAD_PRICE
            if not 1 <= quantity <= (1 << 24) - price:
                return Reason.BAD_QUANTITY
            book = self.books.setdefault(instrument, Book(price, quantity, int(c["order_id"])))
            if (book.low, book.size, book.digest) != (price, quantity, int(c["order_id"])):
                return Reason.EXISTS
        elif kind == Kind.SET_LIMIT:
            reason = self.set_limit(
                int(c["param"]), account, instrument, quantity, known_account, known_instrument
            )
            if reason:
                return reason
        elif kind == Kind.MASS_CANCEL:
            if not known_instrument:
                return Reason.UNKNOWN_INSTRUMENT
            if not known_account and account != ALL_ACCOUNTS:
                return Reason.UNKNOWN_ACCOUNT
            if side > 2:
                return Reason.BAD_SIDE
            ended = [
                o
                for o in self.live.values()
                if account in (ALL_ACCOUNTS, o.account)
                and instrument in (ALL_INSTRUMENTS, o.instrument)
                and side in (0, o.side)
            ]
        elif kind == Kind.KILL:
            if not known_account and account != ALL_ACCOUNTS:
                return Reason.UNKNOWN_ACCOUNT
            if quantity not in (0, 1):
                return Reason.BAD_QUANTITY
            if account == ALL_ACCOUNTS:
                self.all_killed = bool(quantity)
            elif quantity:
                self.killed.add(account)
            else:
                self.killed.discard(account)
            if quantity:
                ended = [o for o in self.live.values() if account in (ALL_ACCOUNTS, o.account)]
        elif kind == Kind.HALT:
            if not known_instrument:
                return Reason.UNKNOWN_INSTRUMENT
            if quantity not in (0, 1):
                return Reason.BAD_QUANTITY
            for number, book in self.books.items():
                if instrument in (ALL_INSTRUMENTS, number):
                    book.halted = bool(quantity)
        elif kind != Kind.CLOCK:
            return Reason.BAD_COMMAND
        for order in sorted(ended, key=lambda o: o.id & ((1 << SLOT_BITS) - 1)):
            self.off(order)
            self.end(order, Reason.KILLED if kind == Kind.KILL else Reason.MASS_CANCEL)
            self.give_slot(order.id)
        self.emit(EventKind.DONE, quantity=len(ended), **whom)
        return 0

    def set_limit(self, limit, account, instrument, value, known_account, known_instrument):  # noqa: C901
        if not 1 <= limit <= 6:
            return Reason.BAD_COMMAND
        if limit not in (Limit.MAX_OPEN_ORDERS, Limit.EXEMPT) and not known_instrument:
            return Reason.UNKNOWN_INSTRUMENT
        if limit == Limit.COLLAR:
            if account != 0:
                return Reason.UNKNOWN_ACCOUNT
        elif not known_account and (account != 0 or limit == Limit.EXEMPT):
            return Reason.UNKNOWN_ACCOUNT
        most = {Limit.EXEMPT: 1, Limit.COLLAR: (1 << 37) - 1}.get(limit, UNLIMITED - 1)
        if not 0 <= value <= most:
            return Reason.BAD_QUANTITY
        if limit == Limit.EXEMPT:
            (self.exempt.add if value else self.exempt.discard)(account)
        elif limit == Limit.MAX_OPEN_ORDERS:
            self.open_limits[account] = value
        else:
            for number, book in self.books.items():
                if instrument not in (ALL_INSTRUMENTS, number):
                    continue
                if limit == Limit.COLLAR:
                    book.collar = value or None
                elif account == 0:
                    book.limits[limit] = value
                else:
                    self.account_limits[account, number, limit] = value
        return 0
