"""The operators' metrics of a running stack, row by row, as `tvops slo` prints them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from tvops.engine.telemetry.document import Metric, MetricState
from tvops.engine.telemetry.targets import Target
from tvops.telemetry_client import Reading, TelemetryClient
from tvops.terminal import clean

_RANKS: dict[MetricState, int] = {"no data": 0, "ok": 1, "warn": 2, "breach": 3}


class Port(msgspec.Struct, frozen=True):
    """A port that is asked, and the process that is behind it."""

    url: str
    process: str  # engine, market


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one process; values are in `unit`."""

    metric: str
    text: str
    process: str
    unit: str
    value: float | None
    target: float
    limit: float
    state: MetricState
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    maximum: float | None = None
    samples: int = 0
    detail: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `tvops slo --json` prints."""

    ok: bool
    time: int  # ns since 1970
    seconds: float  # how long the stack was watched
    answered: bool  # some port gave telemetry at some time
    unreachable: dict[str, str]  # URL of each port that did not answer at some time -> why
    rows: tuple[Row, ...]


def rows_of(ports: Sequence[Port], readings: Sequence[Reading], targets: Sequence[Target], own: bool) -> list[Row]:
    """Give a row for every metric that one reading of each port tells, and for those that it should.

    Args:
        ports: those that were asked.
        readings: their answers, in the same order.
        targets: of a file of the caller's, or those that ship.
        own: whether ``targets`` are the caller's: then they decide what is judged and how, else the stack does.
    """
    by_name = {target.name: target for target in targets}
    rows = []
    for reading in readings:
        if reading.telemetry is None:
            continue
        for metric in reading.telemetry.metrics:
            if not own:
                rows.append(_row(metric, reading.telemetry.process))
            elif metric.name in by_name:
                rows.append(_judged(metric, reading.telemetry.process, by_name[metric.name]))
    there = {(row.metric, row.process) for row in rows}
    names = {row.metric for row in rows}
    for port, reading in zip(ports, readings, strict=True):
        if reading.telemetry is not None and not own:
            continue
        why = f"{port.url} {reading.error}" if reading.error else "the stack does not measure it"
        for target in targets:
            process = port.process if target.measured == "by each" else _measurer(target)
            missing = (target.name, process) not in there and (
                target.measured != "once" or target.name not in names
            )
            if process == port.process and missing:
                rows.append(_missing(target, process, why))
    order = {name: place for place, name in enumerate(by_name)}
    return sorted(rows, key=lambda row: order.get(row.metric, len(order)))


def worst(before: Iterable[Row], now: Sequence[Row]) -> list[Row]:
    """Give the rows of now, each in the worst state that it or its like before was in; data count over none."""
    seen = {(row.metric, row.process): row for row in before}
    result = []
    for row in now:
        last = seen.get((row.metric, row.process), row)
        if _RANKS[last.state] > _RANKS[row.state]:
            kept = last if row.value is None else row
            row = msgspec.structs.replace(kept, state=last.state)
        result.append(row)
    return result


def with_outages(rows: Sequence[Row], outages: Mapping[str, str]) -> list[Row]:
    """Give the rows, those that were ok without data where their process did not answer for a while.

    What nobody could see may have been anything; a warning or a breach that was seen stays what it is.

    Args:
        rows: of a whole watch.
        outages: process -> why it was not seen.
    """
    return [
        msgspec.structs.replace(row, state="no data", detail=outages[row.process])
        if row.state == "ok" and row.process in outages
        else row
        for row in rows
    ]


async def watch(
    ports: Sequence[Port], targets: Sequence[Target], own: bool, api_key: str, seconds: float
) -> Report:
    """Ask the ports for ``seconds``, once a second (0: once), and judge by the worst that was seen.

    A port that did not answer at some time is not ok, also when it answers again.
    """
    begun = time.monotonic()
    rows: list[Row] = []
    polls, missed, whys = 0, Counter[Port](), dict[Port, str]()
    async with TelemetryClient([port.url for port in ports], api_key) as client:
        while True:
            readings = await client.poll()
            polls += 1
            away = {port: r.error for port, r in zip(ports, readings, strict=True) if r.telemetry is None}
            missed.update(away.keys())
            whys |= away
            rows = worst(rows, rows_of(ports, readings, targets, own))
            left = begun + seconds - time.monotonic()
            if left <= 0:
                break
            await asyncio.sleep(min(1.0, left))
    if polls > 1:
        whys = {port: f"{why} ({missed[port]} of {polls} times)" for port, why in whys.items()}
    rows = with_outages(rows, {port.process: f"{port.url} {why}" for port, why in whys.items()})
    return Report(
        ok=bool(rows) and not whys and all(row.state == "ok" for row in rows),
        time=time.time_ns(),
        seconds=round(time.monotonic() - begun, 3),
        answered=any(missed[port] < polls for port in ports),
        unreachable={port.url: why for port, why in whys.items()},
        rows=tuple(rows),
    )


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("metric", lambda row: row.metric),
    ("process", lambda row: row.process),
    ("value", lambda row: _number(row.value)),
    ("target", lambda row: _number(row.target)),
    ("limit", lambda row: _number(row.limit)),
    ("unit", lambda row: row.unit),
    ("p50", lambda row: _number(row.p50)),
    ("p99", lambda row: _number(row.p99)),
    ("p99.9", lambda row: _number(row.p999)),
    ("max", lambda row: _number(row.maximum)),
    ("n", lambda row: str(row.samples)),
    ("state", lambda row: row.state),
)
_LEFT = ("metric", "process", "unit", "state")


def lines(rows: Sequence[Row], shown_state: Callable[[MetricState], str] = str) -> list[str]:
    """Give the table as text without control characters, its head first; ``shown_state`` may colour a state."""
    cells = [[title for title, _ in _COLUMNS], *([clean(cell(row)) for _, cell in _COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = []
    for number, texts in enumerate(cells):
        parts = [
            text.ljust(width) if title in _LEFT else text.rjust(width)
            for text, width, (title, _) in zip(texts, widths, _COLUMNS, strict=True)
        ]
        if number:
            parts[-1] = shown_state(rows[number - 1].state)
            detail = clean(rows[number - 1].detail)
            parts += [f"({detail})"] if detail else []
        aligned.append("  ".join(parts).rstrip())
    return aligned


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _measurer(target: Target) -> str:
    """Give the process that a metric comes from in a whole stack."""
    return "market" if target.measured == "by market" else "engine"


def _row(metric: Metric, process: str) -> Row:
    return Row(
        metric=metric.name, text=metric.text, process=process, unit=metric.unit, value=metric.value,
        target=metric.target, limit=metric.limit, state=metric.state, p50=metric.p50, p99=metric.p99,
        p999=metric.p999, maximum=metric.maximum, samples=metric.samples, detail=metric.detail,
    )  # fmt: skip


def _judged(metric: Metric, process: str, target: Target) -> Row:
    if metric.unit != target.unit:
        return _missing(target, process, f"the stack measures it in {metric.unit}")
    state = target.level(metric.value)
    row = _row(metric, process)
    return msgspec.structs.replace(row, target=target.target, limit=target.limit, state=state)


def _missing(target: Target, process: str, why: str) -> Row:
    return Row(
        metric=target.name, text=target.text, process=process, unit=target.unit, value=None, target=target.target,
        limit=target.limit, state="no data", detail=why,
    )  # fmt: skip
