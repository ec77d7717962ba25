"""Captures as files, the replay's schedule, synthetic ticks, and what --feed can be."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from tests.captures import START, Market
from tvops.engine.bus.roles import Bus
from tvops.engine.feeds.capture import MAX_LINE, Captures, find_captures
from tvops.engine.feeds.feed import FeedBatch
from tvops.engine.feeds.own import OwnFeed
from tvops.engine.feeds.replay import ReplayFeed
from tvops.engine.feeds.select import make_feed
from tvops.engine.feeds.synthetic import SyntheticFeed
from tvops.engine.instruments import load_instruments
from tvops.engine.market.book import Books
from tvops.engine.records import DepthFlag
from tvops.errors import UsageError
from tvops.settings import Settings

TABLE = load_instruments()
BINANCE = TABLE.by_feed("binance")


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd", "two gzip members", "two zstd frames"])
def test_formats_are_told_by_content(tmp_path: Path, packed: str) -> None:
    lines = Market().lines(30)
    half = len(lines) // 2
    first, second = b"".join(lines[:half]), b"".join(lines[half:])
    zstd = zstandard.ZstdCompressor()
    data = {
        "plain": first + second,
        "gzip": gzip.compress(first + second),
        "zstd": zstd.compress(first + second),
        "two gzip members": gzip.compress(first) + gzip.compress(second),
        "two zstd frames": zstd.compress(first) + zstd.compress(second),
    }[packed]
    path = tmp_path / "capture.bin"
    path.write_bytes(data)
    frames = list(Captures([path]).frames())
    assert [b"%d %s" % frame for frame in frames] == [line.rstrip(b"\n") for line in lines]


def test_garbage_lines_are_skipped(tmp_path: Path) -> None:
    lines = Market().lines(3)
    garbage = [b"\n", b"hello\n", b"\xff\xfe\x00\n", b"12 \n", b"-5 {}\n", b"9" * 30 + b" {}\n"]
    huge = [b"5 {" + b"x" * (3 * MAX_LINE) + b"\n"]
    captures = Captures([write(tmp_path / "c", [*garbage, *lines[:2], *huge, *lines[2:], *huge[0:1]])])
    assert len(list(captures.frames())) == len(lines)
    assert captures.counts["garbage"] == len(garbage) + 2


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_truncated_gzip_ends_early(tmp_path: Path, keep: float, caplog: pytest.LogCaptureFixture) -> None:
    lines = Market().lines(2000)
    data = gzip.compress(b"".join(lines))
    path = tmp_path / "c.gz"
    path.write_bytes(data[: int(len(data) * keep)])
    captures = Captures([path])
    with caplog.at_level(logging.WARNING):
        frames = list(captures.frames())
    assert 0 < len(frames) < len(lines)
    assert captures.counts["damaged"] == 1
    assert "ends early" in caplog.text


def test_a_corrupt_gzip_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "c.gz"
    data = bytearray(gzip.compress(b"".join(Market().lines(5000))))
    data[len(data) // 2 :: 97] = bytes(len(data[len(data) // 2 :: 97]))
    path.write_bytes(data)
    captures = Captures([path])
    list(captures.frames())
    assert captures.counts["damaged"] == 1


def test_files_that_are_no_captures(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello\n" * 100)
    (tmp_path / "json").write_text('{"a":1}\n')
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b" + os.urandom(100))
    (tmp_path / "bad.zst").write_bytes(b"\x28\xb5\x2f\xfd" + os.urandom(100))
    for name in ("empty", "text", "json", "bad.gz", "bad.zst", "missing"):
        with pytest.raises(UsageError, match=name) as caught:
            find_captures(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="no capture in the directory"):
        find_captures(str(tmp_path))
    with pytest.raises(UsageError, match="not a file"):
        find_captures("/dev/zero")
    with pytest.raises(UsageError, match="needs a path"):
        find_captures(" , ")


def test_captures_merge_by_time(tmp_path: Path) -> None:
    btc, eth = Market("BTCUSDT"), Market("ETHUSDT", middle=250_000, time=START + 500_000)
    (tmp_path / "notes.txt").write_text("not a capture\n")
    write(tmp_path / "a", btc.lines(10))
    write(tmp_path / "b", eth.lines(10))
    captures = find_captures(str(tmp_path))
    assert set(captures.symbols) == {"BTCUSDT", "ETHUSDT"}
    times = [time for time, _ in captures.frames()]
    assert times == sorted(times)
    assert len(find_captures(f"{tmp_path / 'a'}, {tmp_path / 'b'}").paths) == 2
    with pytest.raises(UsageError, match="both carry BTCUSDT"):
        find_captures(f"{tmp_path / 'a'},{tmp_path / 'a'}")


async def collect(batches: AsyncIterator[FeedBatch], most: int = 10**9) -> list[FeedBatch]:
    """Take batches until the feed ends or there are ``most`` trades."""
    out, trades = [], 0
    async for batch in batches:
        out.append(batch)
        trades += len(batch.trades)
        if trades >= most:
            break
    return out


def times_of(batches: list[FeedBatch]) -> list[int]:
    return [
        int(t)
        for b in batches
        for t in np.sort(np.concatenate([b.depth["time"], b.ticks["time"], b.trades["time"]]))
    ]


async def test_replay_keeps_the_schedule_of_the_capture(tmp_path: Path) -> None:
    market = Market()
    captures = Captures([write(tmp_path / "c", market.lines(100))])
    feed = ReplayFeed(captures, TABLE, BINANCE, speed=4)
    assert (feed.state(), feed.describe()) == ("syncing", "replay of c at 4x")
    batches = await collect(feed.batches())
    received = [time for time, _ in captures.frames()]
    trades = np.concatenate([b.trades["time"] for b in batches])
    expected = [t for t, frame in captures.frames() if b"@trade" in frame]
    assert (trades - trades[0]).tolist() == [(t - expected[0]) // 4 for t in expected]
    times = times_of(batches)
    assert times == sorted(times)
    assert times[-1] - times[0] <= (received[-1] - received[0]) / 4
    # a batch says how far the feed has come: nothing earlier comes later
    for batch, following in pairwise(batches):
        assert min(times_of([following]), default=batch.time) >= batch.time
    assert feed.state() == "ended"
    assert feed.stats()["frames"] == len(received)


async def test_loops_resync_and_times_keep_increasing(tmp_path: Path) -> None:
    market = Market(futures=False)
    lines = market.lines(20)
    feed = ReplayFeed(Captures([write(tmp_path / "c", lines)]), TABLE, BINANCE, speed=10, loop=True)
    books, per_pass = Books(len(TABLE)), sum(b"@trade" in line for line in lines)
    batches = await collect(feed.batches(), 3 * per_pass)
    times = times_of(batches)
    assert times == sorted(times)
    gaps = snapshots = 0
    for batch in batches:
        books.apply(batch.depth)
        gaps += int((batch.depth["flags"] & DepthFlag.GAP > 0).sum())
        firsts = batch.depth["flags"] & (DepthFlag.SNAPSHOT | DepthFlag.FIRST)
        snapshots += int((firsts == DepthFlag.SNAPSHOT | DepthFlag.FIRST).sum())
    assert (gaps, snapshots, books.live(0), books.crossed[0]) == (2, 3, True, 0)
    assert feed.stats()["sync_gaps"] == 0
    assert feed.stats()["passes"] == 3


async def test_broken_times_do_not_stop_the_replay(tmp_path: Path) -> None:
    market = Market()
    lines = market.lines(5)
    lines.insert(6, b"9000000000000000000 " + market.trade().partition(b" ")[2])
    lines.insert(9, b"17 " + market.trade().partition(b" ")[2])
    feed = ReplayFeed(Captures([write(tmp_path / "c", lines)]), TABLE, BINANCE, speed=100)
    times = times_of(await asyncio.wait_for(collect(feed.batches()), 60))
    assert times == sorted(times)
    assert times[-1] - times[0] < 10**9
    assert feed.stats()["time_jumps"] == 4


async def test_a_replay_that_cannot_keep_up_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvops.engine.feeds.replay.MAX_FRAMES", 2)
    monkeypatch.setattr("tvops.engine.feeds.replay.BEHIND_NS", 0)
    market = Market()
    feed = ReplayFeed(Captures([write(tmp_path / "c", market.lines(300))]), TABLE, BINANCE, speed=10_000)
    worst: dict[str, Any] = {}
    async for _ in feed.batches():
        if feed.stats()["behind_ms"]:
            worst = feed.stats()
    assert worst["keeps_up"] == 0
    assert feed.stats()["frames"] == len(list(feed._captures.frames()))


async def test_resync_waits_for_the_next_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvops.engine.feeds.replay.MAX_FRAMES", 1)  # or one batch of a late replay has it all
    market = Market()
    lines = [*market.lines(10), market.snapshot(), *(market.update() for _ in range(5))]
    feed, books = ReplayFeed(Captures([write(tmp_path / "c", lines)]), TABLE, BINANCE), Books(len(TABLE))
    asked = False
    async for batch in feed.batches():
        books.apply(batch.depth)
        if books.live(0) and not asked:
            asked = True
            feed.resync(0)
            assert feed.state() == "gap"
    assert books.gaps[0] == 1
    assert dict(books.levels(0, 99)[0].tolist()) == market.bids


async def test_synthetic_ticks_are_exact_and_repeatable() -> None:
    mask = np.array([symbol in ("ETH-USDT", "XRP-USDT") for symbol in TABLE.by_symbol])
    feeds = [SyntheticFeed(TABLE, mask, 1000, seed=7) for _ in range(2)]
    whole = feeds[0].make(3000, 5)
    parts = np.concatenate([feeds[1].make(n, 5) for n in (1, 999, 2000)])
    assert (whole == parts).all()
    assert (np.diff(whole["time"]) == 1_000_000).all()
    assert set(whole["instrument"].tolist()) == set(np.flatnonzero(mask).tolist())
    assert (whole["bid"] < whole["ask"]).all()
    for index in np.flatnonzero(mask):
        mine = whole[whole["instrument"] == index]
        assert (mine["bid"] >= TABLE[int(index)].price_low).all()
        assert (mine[1:][["bid", "bid_quantity"]] != mine[:-1][["bid", "bid_quantity"]]).all()
    count = 0
    async for batch in SyntheticFeed(TABLE, mask, 1000).batches():
        count += len(batch.ticks)
        if count > 50:
            break
    assert "not a market" in feeds[1].describe()


@pytest.mark.parametrize(
    ("feed", "words"),
    [
        ("replay", "needs a path"),
        ("replay:", "needs a path"),
        ("replay:/nonexistent/x.gz", "/nonexistent/x.gz"),
        ("synthetic", "1 to 200000"),
        ("synthetic:0", "1 to 200000"),
        ("synthetic:200001", "1 to 200000"),
        ("synthetic:-5", "1 to 200000"),
        ("synthetic:1e3", "1 to 200000"),
        ("synthetic:१०", "1 to 200000"),
        ("binance", "choose sim, replay:PATH"),
        ("", "choose sim, replay:PATH"),
        ("sim:5", "choose sim, replay:PATH"),
    ],
)
async def test_bad_feeds_are_one_plain_line(bus: Bus, feed: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make_feed(Settings(feed=feed), TABLE, bus)
    assert "\n" not in str(caught.value)


async def test_feeds_by_name(bus: Bus, tmp_path: Path) -> None:
    path = write(tmp_path / "c", Market("ETHUSDT").lines(3))
    assert isinstance(make_feed(Settings(feed=f"replay:{path}"), TABLE, bus), ReplayFeed)
    assert isinstance(make_feed(Settings(feed="synthetic:200000"), TABLE, bus), SyntheticFeed)
    sim = make_feed(Settings(), TABLE, bus)
    assert isinstance(sim, OwnFeed)
    assert "simulated" in sim.describe()
    with pytest.raises(UsageError, match="the capture has ETHUSDT"):
        make_feed(Settings(feed=f"replay:{path}", symbols=("BTC-USDT",)), TABLE, bus)
    with pytest.raises(UsageError, match="no instrument 'NO-SUCH'"):
        make_feed(Settings(symbols=("NO-SUCH",)), TABLE, bus)
