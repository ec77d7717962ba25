"""Charts as inline SVG: curves over a log-percentile axis, over time, over load, and intervals around 0.

Colours are the classes ``c1`` to ``c6`` of the page's style sheet, so that one drawing fits light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

import msgspec
import numpy as np

from tvops.engine.telemetry.histogram import HIGHEST_OF, Histogram

NARROW: Final = 640
WIDE: Final = 1120
HEIGHT: Final = 300
COLOURS: Final = 6
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 12, 40
_LEAST_MS: Final = 1e-3  # below a microsecond nothing matters here
_LEAST_SPAN: Final = 1e-9  # of an axis; values closer to each other are the same
_PERCENT_TICKS: Final = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)

Point = tuple[float, float]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A line in a chart."""

    name: str
    colour: int  # 1 to COLOURS
    points: tuple[Point, ...]
    dashed: bool = False
    dots: bool = False  # points alone, without a line
    band: tuple[tuple[float, float, float], ...] = ()  # x, low, high


class Mark(msgspec.Struct, frozen=True):
    """A straight line across a chart, at a value of one axis."""

    value: float
    text: str
    upright: bool = False


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """One axis: where its values are, and what is written there."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    title: str
    log: bool = False

    def share(self, value: float) -> float:
        """Give where a value is between low (0) and high (1)."""
        if not self.log:
            return (value - self.low) / ((self.high - self.low) or 1)
        return math.log(max(value, self.low) / self.low) / (math.log(self.high / self.low) or 1)


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A difference and the interval around it, with the noise floor to see it against."""

    name: str
    value: float
    low: float
    high: float
    floor: float
    colour: str  # a class: good, bad, even
    text: str


def percentile_points(histogram: Histogram) -> tuple[Point, ...]:
    """Give the percentile curve of a histogram: (log10 of 1 in how many, ms), as far as there are samples."""
    counts = histogram.unpack()
    total = int(counts.sum())
    if not total:
        return ()
    where = np.flatnonzero(counts)
    reached = np.cumsum(counts[where])
    values = np.minimum(HIGHEST_OF[where], histogram.maximum or HIGHEST_OF[-1]) / 1e6
    # The largest sample is one of so many: the curve ends there and not at 1 in infinitely many.
    ends = -np.log10(np.maximum(1 - reached / total, 1 / total))
    begins = np.concatenate(([0.0], ends[:-1]))
    points = [point for b, e, v in zip(begins, ends, values, strict=True) for point in ((b, v), (e, v))]
    return _thinned([(float(x), max(float(y), _LEAST_MS)) for x, y in points])


def _thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """Drop points that no eye could tell from the one before: less than a 700th of the chart away."""
    kept = [points[0]]
    width = (points[-1][0] - points[0][0]) or 1
    for x, y in points[1:-1]:
        if x - kept[-1][0] > width / 700 or abs(math.log(y / kept[-1][1])) > 0.01:
            kept.append((x, y))
    return (*kept, points[-1])


def percentile_chart(curves: Sequence[Curve], width: int = NARROW) -> str:
    """Draw percentile curves: 90, 99 and 99.9 % are as far apart as they matter, latency on a log axis."""
    far = max((curve.points[-1][0] for curve in curves if curve.points), default=1.0)
    ticks = [(-math.log10(1 - percent / 100), f"{percent:g} %") for percent in _PERCENT_TICKS]
    across = Axis(
        low=0, high=max(far, 1.0), title="percentile",
        ticks=tuple(tick for tick in ticks if tick[0] <= far + 1e-9),
    )  # fmt: skip
    return _chart(curves, across, latency_axis([y for curve in curves for _, y in curve.points]), width=width)


def time_chart(curves: Sequence[Curve], title: str, latency: bool, width: int = NARROW) -> str:
    """Draw curves over the seconds of a run; latencies on a log axis, anything else from 0."""
    across = linear_axis([x for curve in curves for x, _ in curve.points] or [1], "s", zero=True)
    values = [y for curve in curves for _, y in curve.points]
    along = latency_axis(values) if latency else linear_axis(values, title, zero=True)
    return _chart(curves, across, along, width=width)


def load_chart(
    curves: Sequence[Curve], across: str, along: str, marks: Sequence[Mark] = (), width: int = NARROW
) -> str:
    """Draw curves over a load, both axes from 0."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    xs += [mark.value for mark in marks if mark.upright]
    ys += [mark.value for mark in marks if not mark.upright]
    return _chart(curves, linear_axis(xs, across, zero=True), linear_axis(ys, along, zero=True), marks, width)


def latency_axis(values: Sequence[float]) -> Axis:
    """Give a log axis for ms; ticks at 1, 2, 5 where it is short."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    candidates = [step * 10.0**power for power in range(first - 1, last + 1) for step in steps]
    bottom = max([c for c in candidates if c <= low], default=low)
    top = min([c for c in candidates if c >= high * 1.02], default=high * 1.1)
    ticks = tuple((c, f"{c:g}") for c in candidates if bottom <= c <= top)
    return Axis(low=bottom, high=top, ticks=ticks, title="ms", log=True)


def linear_axis(values: Sequence[float], title: str, zero: bool = False) -> Axis:
    """Give an axis with some five round ticks around the values."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    low = min(low, 0.0) if zero else low
    if high - low < _LEAST_SPAN:
        high = low + 1
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    ticks = tuple((n * step, f"{n * step:,.10g}") for n in range(first, last + 1))
    return Axis(low=first * step, high=last * step, ticks=ticks, title=title)


def _chart(
    curves: Sequence[Curve], across: Axis, along: Axis, marks: Sequence[Mark] = (), width: int = NARROW
) -> str:
    def x(value: float) -> float:
        return _LEFT + across.share(value) * (width - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - along.share(value) * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {width} {HEIGHT}" role="img">', *_grid(across, along, x, y)]
    for curve in curves:
        parts += _curve(curve, x, y)
    for mark in marks:
        parts += _mark(mark, x(mark.value) if mark.upright else y(mark.value), width - _RIGHT)
    parts.append("</svg>")
    return "".join(parts)


def _grid(across: Axis, along: Axis, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    bottom, right = HEIGHT - _BOTTOM, x(across.high)
    parts = []
    for value, text in along.ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 8}" y="{y(value) + 4:.1f}">{escape(text)}</text>')
    for value, text in across.ticks:
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick middle" x="{x(value):.1f}" y="{bottom + 17}">{escape(text)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text class="title end" x="{right}" y="{HEIGHT - 5}">{escape(across.title)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="title middle" x="14" y="{middle:.0f}" transform="rotate(-90 14 {middle:.0f})">'
        f"{escape(along.title)}</text>"
    )
    return parts


def _curve(curve: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    parts = []
    colour = f"c{(curve.colour - 1) % COLOURS + 1}"
    title = f"<title>{escape(curve.name)}</title>"
    if curve.band:
        edge = [(a, high) for a, _, high in curve.band] + [(a, low) for a, low, _ in reversed(curve.band)]
        # A wide interval ends at the edge of the chart.
        points = " ".join(f"{x(a):.1f},{max(y(b), _TOP):.1f}" for a, b in edge)
        parts.append(f'<polygon class="band {colour}" points="{points}"/>')
    if curve.dots or len(curve.points) == 1:
        for a, b in curve.points:
            label = f"<title>{escape(curve.name)}: {a:,.4g}, {b:,.4g}</title>"
            parts.append(f'<circle class="dot {colour}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="4">{label}</circle>')
    elif curve.points:
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve.points)
        dashed = " dashed" if curve.dashed else ""
        parts.append(f'<polyline class="curve {colour}{dashed}" points="{points}">{title}</polyline>')
    return parts


def _mark(mark: Mark, at: float, right: int) -> list[str]:
    if mark.upright:
        line = f'x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"'
        side, shift = ("end", -5) if at > right / 2 else ("", 5)
        text = f'x="{at + shift:.1f}" y="{_TOP + 11}"'
    else:
        line = f'x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"'
        side, text = "", f'x="{_LEFT + 6}" y="{at - 5:.1f}"'
    return [f'<line class="mark" {line}/>', f'<text class="tick {side}" {text}>{escape(mark.text)}</text>']


def interval_chart(intervals: Sequence[Interval], unit: str) -> str:
    """Draw differences with their intervals around 0, each over its noise floor."""
    left, row, right = 230, 30, 160
    height = row * len(intervals) + 42
    ends = [v for i in intervals for v in (i.low, i.high, -i.floor, i.floor)]
    axis = linear_axis(ends, unit, zero=True)

    def x(value: float) -> float:
        return left + axis.share(value) * (WIDE - left - right)

    bottom = height - 36
    parts = [f'<svg viewBox="0 0 {WIDE} {height}" role="img">']
    for value, text in axis.ticks:
        kind = "axis" if value == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="4" y2="{bottom}"/>')
        parts.append(f'<text class="tick middle" x="{x(value):.1f}" y="{bottom + 16}">{escape(text)}</text>')
    parts.append(f'<text class="title middle" x="{x(0):.1f}" y="{height - 4}">{escape(unit)}</text>')
    for number, each in enumerate(intervals):
        y = 4 + row * number + row / 2
        floor = f'x="{x(-each.floor):.1f}" width="{x(each.floor) - x(-each.floor):.1f}"'
        ends_at = f'x1="{x(each.low):.1f}" x2="{x(each.high):.1f}"'
        parts += [
            f'<rect class="floor" {floor} y="{y - 9}" height="18"/>',
            f'<line class="interval {each.colour}" {ends_at} y1="{y}" y2="{y}"/>',
            f'<circle class="dot {each.colour}" cx="{x(each.value):.1f}" cy="{y}" r="4.5"/>',
            f'<text class="tick end" x="{left - 12}" y="{y + 4}">{escape(each.name)}</text>',
            f'<text class="tick {each.colour}" x="{WIDE - right + 12}" y="{y + 4}">{escape(each.text)}</text>',
        ]
    return "".join([*parts, "</svg>"])
