"""Makes small Binance captures for tests, and finds the recorded ones where they are."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest

DATA = Path(os.environ.get("TVOPS_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
START = 1_700_000_000_000_000_000


def recorded(name: str) -> Path:
    """Give a recorded capture, or skip the test."""
    path = DATA / "binance" / name
    if not path.is_file():
        pytest.skip(f"{path} is not here (TVOPS_TEST_DATA says where recorded market data are)")
    return path


def level(price: int, lots: int) -> list[str]:
    """Write a level of BTC-USDT: cents and 0.00001."""
    return [str(Decimal(price).scaleb(-2)), f"{Decimal(lots).scaleb(-5):f}"]


@dataclass
class Market:
    """A random market of one symbol that writes the lines of its capture."""

    symbol: str = "BTCUSDT"
    futures: bool = True
    seed: int = 1
    middle: int = 6_000_000
    time: int = START
    last: int = 1000  # u
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    trade_id: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        for n in range(1, 30):
            self.bids[self.middle - n * 10] = self.random.randint(1, 10**6)
            self.asks[self.middle + n * 10] = self.random.randint(1, 10**6)

    def line(self, frame: object) -> bytes:
        self.time += 1_000_000
        return b"%d %s\n" % (self.time, json.dumps(frame, separators=(",", ":")).encode())

    def stream(self, kind: str, data: dict[str, object]) -> bytes:
        return self.line({"stream": f"{self.symbol.lower()}@{kind}", "data": {"s": self.symbol, **data}})

    def update(self) -> bytes:
        """Change some levels, keep the spread open, and give the depthUpdate."""
        previous, changes = self.last, ([], [])
        for side, book, sign in ((0, self.bids, -1), (1, self.asks, 1)):
            for _ in range(self.random.randint(0, 4)):
                price = self.middle + sign * self.random.randint(1, 60) * 10
                lots = self.random.choice((0, self.random.randint(1, 10**6)))
                if lots:
                    book[price] = lots
                elif book.pop(price, None) is None:
                    continue
                changes[side].append(level(price, lots))
        step = self.random.randint(1, 5)
        first = previous + 1 + (self.random.randint(0, 3) if self.futures else 0)
        self.last = first + step
        data: dict[str, object] = {"e": "depthUpdate", "E": self.time // 10**6 + 1250, "U": first, "u": self.last}
        if self.futures:
            data["pu"] = previous
        return self.stream("depth@100ms", {**data, "b": changes[0], "a": changes[1]})

    def snapshot(self) -> bytes:
        bids = [level(p, q) for p, q in sorted(self.bids.items(), reverse=True)]
        asks = [level(p, q) for p, q in sorted(self.asks.items())]
        return self.line({"lastUpdateId": self.last, "bids": bids, "asks": asks})

    def ticker(self) -> bytes:
        bid, ask = max(self.bids), min(self.asks)
        (b, bq), (a, aq) = level(bid, self.bids[bid]), level(ask, self.asks[ask])
        return self.stream("bookTicker", {"u": self.last, "b": b, "B": bq, "a": a, "A": aq})

    def trade(self, lots: int = 5, buyer_is_maker: bool = False) -> bytes:
        self.trade_id += 1
        price, quantity = level(max(self.bids) if buyer_is_maker else min(self.asks), lots)
        data = {"e": "trade", "t": self.trade_id, "p": price, "q": quantity, "m": buyer_is_maker}
        return self.stream("trade", data)

    def lines(self, updates: int) -> list[bytes]:
        """Give an ordinary capture: updates, a snapshot that lies between two of them, more updates."""
        lines = [self.update(), self.update(), self.snapshot(), self.update()]
        for n in range(updates):
            lines += [self.update(), self.ticker()] + ([self.trade(n + 1, n % 2 == 0)] if n % 3 == 0 else [])
        return lines
