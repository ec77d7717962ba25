"""Chooses the feed that `--feed` names."""

from __future__ import annotations

from tvops.engine.bus.roles import Bus
from tvops.engine.feeds.capture import find_captures
from tvops.engine.feeds.feed import Feed, carried
from tvops.engine.feeds.own import OwnFeed
from tvops.engine.feeds.replay import ReplayFeed
from tvops.engine.feeds.synthetic import SyntheticFeed, parse_rate
from tvops.engine.instruments import InstrumentTable
from tvops.errors import UsageError
from tvops.settings import Settings


def make_feed(settings: Settings, table: InstrumentTable, bus: Bus) -> Feed:
    """Give the feed of ``settings.feed``.

    Raises:
        UsageError: there is no such feed, its argument is wrong, or the capture cannot be replayed.
    """
    mask = carried(settings.symbols, table)
    kind, _, argument = settings.feed.partition(":")
    if settings.feed == "sim":
        return OwnFeed(bus, table, mask, name="sim")
    if kind == "synthetic":
        return SyntheticFeed(table, mask, parse_rate(argument))
    if kind == "replay":
        instruments = {name: i for name, i in table.by_feed("binance").items() if mask[i.index]}
        captures = find_captures(argument)
        if not instruments.keys() & captures.symbols.keys():
            has, wants = ", ".join(sorted(captures.symbols)), ", ".join(instruments) or "none"
            raise UsageError(f"feed: the capture has {has}; the carried instruments are at Binance: {wants}")
        return ReplayFeed(captures, table, instruments, settings.speed, settings.loop)
    raise UsageError(
        f"feed: there is no feed {settings.feed[:80]!r}; choose sim, replay:PATH or synthetic:TICKS_PER_SECOND"
    )
