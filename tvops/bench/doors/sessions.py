"""Market data sessions: N clients that read as fast as they can, and some that do not."""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import picows

from tvops.bench.addresses import address_of
from tvops.bench.doors.base import Door
from tvops.bench.doors.tally import Latencies, Tally
from tvops.bench.pacing import Timer
from tvops.bench.plan import Plan
from tvops.bench.result import Operation
from tvops.bench.samples import Window
from tvops.engine.records import DTYPES, RecordType
from tvops.errors import ServerError

CONNECT_AT_ONCE = 50
LAG_INTERVAL = 10_000_000
"""ns between two looks at how late the loop is."""

_FRAME = struct.Struct("<3xBBxHI4xQq")
"""Record type, flags, instrument, count, sequence and sent of a frame's header (docs/market-data.md)."""
_TIME = struct.Struct("<q")
_SNAPSHOT, _CONFLATED, _GAP = 1, 2, 4
_SIZES = {int(kind): dtype.itemsize for kind, dtype in DTYPES.items() if kind != RecordType.COMMAND}
_REFILL_SECONDS = 0.1


class ListenOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is subscribed to, and by whom."""

    sessions: Annotated[int, msgspec.Meta(ge=1, le=20_000)] = 10
    channel: Literal["ticks", "trades", "book"] = "ticks"
    symbols: Literal["*"] | tuple[str, ...] = "*"
    encoding: Literal["binary", "json"] = "binary"
    slow_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    slow_kb_per_second: Annotated[float, msgspec.Meta(gt=0)] = 50.0


class _Row(msgspec.Struct, gc=False):
    time: int


class _Message(msgspec.Struct, gc=False):
    """What there is to know of a JSON message."""

    op: str = ""
    message: str = ""
    symbol: str = ""
    seq: int = 0
    sent: int = 0
    count: int = 0
    time: int = 0
    rows: list[_Row] = []
    snapshot: bool = False
    conflated: bool = False
    gap: bool = False


_MESSAGE: Any = msgspec.json.Decoder(_Message)


class Listener(picows.WSListener):
    """One session: follows the numbers of every topic and notes how old each message is."""

    def __init__(self, tally: Tally, options: ListenOptions) -> None:
        self.tally = tally
        self.options = options
        self.sequences: dict[int | str, int] = {}
        self.refused = ""

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Subscribe."""
        self.transport = transport
        options = self.options
        request = {"op": "subscribe", "channel": options.channel, "symbols": options.symbols,
                   "encoding": options.encoding}  # fmt: skip
        transport.send(picows.WSMsgType.TEXT, msgspec.json.encode(request))

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Count it."""
        self.tally.closed += 1

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take a message."""
        now = time.time_ns()
        if frame.msg_type == picows.WSMsgType.BINARY:
            self._on_binary(frame.get_payload_as_memoryview(), now)
        elif frame.msg_type == picows.WSMsgType.TEXT:
            self._on_text(frame.get_payload_as_bytes(), now)
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect(graceful=False)

    def _on_binary(self, payload: memoryview, now: int) -> None:
        tally, offset, size, oldest, sent = self.tally, 0, len(payload), 0, 0
        tally.messages += 1
        tally.bytes += size
        while offset < size:
            kind, flags, instrument, count, sequence, made = _FRAME.unpack_from(payload, offset)
            self._follow(kind << 16 | instrument, flags, sequence, count)
            if not flags and not oldest:
                sent, oldest = made, _TIME.unpack_from(payload, offset + 32)[0]
            offset += 32 + _SIZES[kind] * count
        if oldest:
            tally.sent.values.append(now - sent)
            tally.published.values.append(now - oldest)

    def _on_text(self, payload: bytes, now: int) -> None:
        message = _MESSAGE.decode(payload)
        if message.op:
            if message.op == "error":
                self.refused = message.message
            return
        tally = self.tally
        tally.messages += 1
        tally.bytes += len(payload)
        flags = message.snapshot * _SNAPSHOT | message.conflated * _CONFLATED | message.gap * _GAP
        self._follow(message.symbol, flags, message.seq, message.count or len(message.rows))
        if not flags and (oldest := message.rows[0].time if message.rows else message.time):
            tally.sent.values.append(now - message.sent)
            tally.published.values.append(now - oldest)

    def _follow(self, topic: int | str, flags: int, sequence: int, count: int) -> None:
        sequences, tally = self.sequences, self.tally
        if not flags & _SNAPSHOT:
            tally.records += count
            if flags & _CONFLATED:
                tally.conflated += 1
            elif topic in sequences:
                tally.lost += sequence - count - sequences[topic]
        if flags & _GAP:
            tally.gaps += 1
        sequences[topic] = sequence


class SlowListener(Listener):
    """A session that reads only so many bytes a second."""

    def __init__(self, tally: Tally, options: ListenOptions) -> None:
        super().__init__(tally, options)
        self.refilled = self.budget = int(options.slow_kb_per_second * 1000 * _REFILL_SECONDS)
        self.paused = False

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take a message, and stop reading where that was enough."""
        super().on_ws_frame(transport, frame)
        self.budget -= frame.payload_size
        if self.budget <= 0 and not self.paused and not transport.is_disconnected:
            transport.underlying_transport.pause_reading()
            self.paused = True

    def refill(self) -> None:
        """Read on."""
        self.budget = min(self.budget + self.refilled, self.refilled)
        if self.paused and self.budget > 0 and not self.transport.is_disconnected:
            self.transport.underlying_transport.resume_reading()
            self.paused = False


class Sessions(Door):
    """Sessions of the market data port that listen."""

    name: ClassVar[str] = "sessions"
    target: ClassVar[str] = "market"
    options_type: ClassVar[type[msgspec.Struct]] = ListenOptions
    paced: ClassVar[bool] = False

    options: ListenOptions

    def __init__(self, plan: Plan, options: ListenOptions) -> None:
        super().__init__(plan, options)
        slow = round(options.sessions * options.slow_share)
        self.fast = Tally(options.channel, options.sessions - slow)
        self.slow = Tally(f"slow_{options.channel}", slow)
        self.listeners: list[Listener] = []
        self.lag = Latencies()
        self.started: dict[int | str, int] = {}
        self.ended: dict[int | str, int] = {}
        self.seconds = 0.0
        self.task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect all sessions, some at a time."""
        kinds = [(Listener, self.fast)] * self.fast.sessions + [(SlowListener, self.slow)] * self.slow.sessions
        try:
            for begin in range(0, len(kinds), CONNECT_AT_ONCE):
                await asyncio.gather(*(self._connect(*kind) for kind in kinds[begin : begin + CONNECT_AT_ONCE]))
        except (OSError, picows.WSError, TimeoutError) as error:
            reason = f"{error or 'does not answer'}"
            raise ServerError(f"{self.plan.url}/ws: session {len(self.listeners) + 1}: {reason}") from None
        await asyncio.sleep(0.2)
        if refused := next((listener.refused for listener in self.listeners if listener.refused), ""):
            raise ServerError(f"{self.plan.url}/ws: {refused}")

    async def _connect(self, kind: type[Listener], tally: Tally) -> None:
        headers = {"X-API-Key": self.api_key} if self.api_key else None
        _, listener = await picows.ws_connect(
            lambda: kind(tally, self.options), address_of(self.plan.url).websocket, max_frame_size=1 << 24,
            extra_headers=headers,
        )  # fmt: skip
        assert isinstance(listener, Listener)
        self.listeners.append(listener)

    async def begin(self, window: Window) -> None:
        """Count from the beginning of the window on."""
        self.task = asyncio.get_running_loop().create_task(self._watch(window))

    async def _watch(self, window: Window) -> None:
        loop = asyncio.get_running_loop()
        due = time.monotonic_ns() + LAG_INTERVAL

        def look() -> None:
            nonlocal due
            now = time.monotonic_ns()
            self.lag.values.append(now - due)
            due = now + LAG_INTERVAL
            timer.arm(due)

        timer = Timer(loop, look)
        timer.arm(due)
        refills = loop.create_task(self._refill())
        try:
            await asyncio.sleep((window.begin - time.monotonic_ns()) / 1e9)
            self._reset()
            begun, second = time.monotonic_ns(), 0
            while True:
                second += 1
                # by the window, not by when this began: what began late would miss the last second
                await asyncio.sleep((window.begin + second * 1_000_000_000 - time.monotonic_ns()) / 1e9)
                self._fold(begun)
        finally:
            refills.cancel()
            timer.close()

    def _reset(self) -> None:
        self.fast.reset()
        self.slow.reset()
        self.lag.reset()
        self.started = dict(self.listeners[0].sequences)

    def _fold(self, begun: int) -> None:
        self.fast.fold()
        self.slow.fold()
        self.lag.fold()
        self.seconds = (time.monotonic_ns() - begun) / 1e9
        self.ended = dict(self.listeners[0].sequences)

    async def _refill(self) -> None:
        slow = [listener for listener in self.listeners if isinstance(listener, SlowListener)]
        while slow:
            await asyncio.sleep(_REFILL_SECONDS)
            for listener in slow:
                listener.refill()

    async def close(self) -> None:
        """Disconnect."""
        if self.task is not None:
            self.task.cancel()
        for listener in self.listeners:
            listener.transport.disconnect(graceful=False)

    def operations(self, window: Window) -> list[Operation]:
        """Give what the sessions saw, up to the last whole second."""
        if not self.seconds:
            return []
        rate = sum(last - self.started.get(topic, 0) for topic, last in self.ended.items()) / self.seconds
        return [
            tally.operation(self.name, self.seconds, self.lag, rate)
            for tally in (self.fast, self.slow)
            if tally.sessions
        ]

    def progress(self) -> tuple[int, int, int]:
        """Give how many messages came, twice, and how many sessions were closed."""
        messages = self.fast.messages + self.slow.messages
        return messages, messages, self.fast.closed + self.slow.closed
