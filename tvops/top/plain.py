"""For scripts: one frame as text, samples as JSON lines, metrics as CSV. No terminal needed."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tvops.engine.telemetry.histogram import percentiles, shown_percentiles
from tvops.http_endpoint import Endpoint
from tvops.json_text import json_line
from tvops.telemetry_client import TelemetryClient
from tvops.terminal import clean
from tvops.top.addresses import Stack
from tvops.top.desk import Desk
from tvops.top.history import StageHistory, largest
from tvops.top.lines import plain
from tvops.top.model import Model, Moment, Seen, jitter, metrics_of, stages_of
from tvops.top.replay import Replay
from tvops.top.sampler import read_book
from tvops.top.scene import NO_GATEWAY

PATIENCE = 2.0
CSV_FIELDS = (
    "time", "stack", "url", "metric", "state", "value", "unit", "target", "limit", "samples", "p50", "p99", "p999",
    "maximum", "jitter",
)  # fmt: skip


def sample(
    stacks: tuple[Stack, ...], api_key: str, count: int, seconds: float, each: Callable[[Model], None]
) -> Model:
    """Poll ``count`` times, ``seconds`` apart, and call ``each`` after each; give the model at the end."""

    async def run() -> Model:
        model = Model(stacks)
        async with TelemetryClient([url for stack in stacks for url in stack.urls], api_key, PATIENCE) as client:
            begun = time.monotonic()
            for number in range(count):
                await asyncio.sleep(max(0.0, begun + number * seconds - time.monotonic()))
                for reading in await client.poll():
                    model.take(reading)
                each(model)
        return model

    return asyncio.run(run())


def reached(model: Model) -> bool:
    """Whether any endpoint has given telemetry."""
    return any(source.document is not None and not source.error for source in model.sources.values())


def fetch_book(desk: Desk, api_key: str) -> None:
    """Ask the gateway of the stack that is shown for a book, once, and put what comes of it on the desk."""

    async def run(gateway: Endpoint) -> None:
        desk.book = await read_book(gateway, desk.symbol, desk.book)
        gateway.disconnect()

    process = desk.scene(time.monotonic_ns()).process("gateway")
    if process is None:
        desk.book = NO_GATEWAY
    else:
        asyncio.run(run(Endpoint(process.source.url, api_key)))


def frame_text(desk: Desk, width: int, height: int, now: int) -> str:
    """Give one frame without colours."""
    return "\n".join(plain(line) for line in desk.lines(width, height, now)) + "\n"


def to_json(moment: Moment) -> bytes:
    """Give everything of a moment in one line of JSON."""
    stacks = [{"name": stack.name, "endpoints": [_endpoint(s) for s in seen]} for stack, seen in moment.stacks]
    return json_line({"schema": 1, "time": moment.time, "stacks": stacks})


def csv_head() -> str:
    """Give the names of the CSV fields."""
    return _csv(CSV_FIELDS)


def csv_rows(moment: Moment) -> Iterator[str]:
    """Give a line for each metric, without control characters; fields without data are empty."""
    for stack, seen in moment.stacks:
        for endpoint, m in metrics_of(seen):
            state = m.state if endpoint.fresh and not endpoint.error else "stale"
            yield _csv((
                endpoint.until, stack.name, endpoint.source.url, m.name, state, m.value, m.unit, m.target, m.limit,
                m.samples, m.p50, m.p99, m.p999, m.maximum, jitter(m.p50, m.p99),
            ))  # fmt: skip


def replay_moments(replay: Replay, seconds: float) -> Iterator[Moment]:
    """Give the moments of a recording, ``seconds`` apart."""
    while True:
        yield replay.model.moment(replay.at)
        if replay.at >= replay.end:
            return
        replay.seek(replay.at + int(seconds * 1e9))


def _endpoint(seen: Seen) -> dict[str, Any]:
    about: dict[str, Any] = {"url": seen.source.url, "state": seen.state, "age_seconds": seen.age / 1e9}
    document = seen.document
    if document is None:
        return {**about, "error": seen.error}
    fields = msgspec.structs.asdict(document)
    fields["stages"] = {name: _stage(history) for _, name, history in stages_of((seen,))}
    return {**about, "error": seen.error, "telemetry": fields}


def _stage(history: StageHistory) -> dict[str, Any]:
    counts = history.all_counts
    shown = shown_percentiles(counts)
    total = int(counts.sum())
    found = percentiles(counts, shown, history.maximum)
    return {
        "text": history.text, "samples": total, "unit": "ns",
        "maximum": largest(counts, history.maximum) if total else None,
        "percentiles": {f"{percent:g}": value for percent, value in zip(shown, found, strict=True)},
    }  # fmt: skip


def _csv(fields: Any) -> str:
    text = io.StringIO()
    shown = [clean(field) if isinstance(field, str) else field for field in fields]  # None: an empty field
    csv.writer(text, lineterminator="").writerow(shown)
    return text.getvalue()
