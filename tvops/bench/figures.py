"""The figures of an operation by name: what comparisons, conditions, reports and the history speak of.

p50 p90 p99 p99.9 p99.99 max    response time, from the intended sending, ns
service_p50 … service_max       from the actual sending, ns
lateness_p50 … lateness_max     what the generator itself was late by, ns
rate                            answered per second
errors, timeouts                how many
error_rate                      percent of what should have been answered
"""

from __future__ import annotations

from typing import Final, Literal

from tvops.bench.result import Operation
from tvops.engine.telemetry.histogram import Histogram, percentiles, samples_needed

Unit = Literal["ns", "1/s", "", "%"]

PERCENTS: Final[dict[str, float]] = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "p99.99": 99.99}
_KINDS: Final = ("response", "service", "lateness")
_PLAIN: Final[dict[str, Unit]] = {"rate": "1/s", "errors": "", "timeouts": "", "error_rate": "%"}

UNITS: Final[dict[str, Unit]] = {
    **{(name if kind == "response" else f"{kind}_{name}"): "ns" for kind in _KINDS for name in (*PERCENTS, "max")},
    **_PLAIN,
}
"""Every figure and its unit."""

COMPARED: Final = ("p50", "p90", "p99", "p99.9", "p99.99", "max", "service_p50", "service_p99", "rate", "errors")
"""What a comparison shows."""


def lower_is_better(figure: str) -> bool:
    """Whether less of a figure is better."""
    return figure != "rate"


def figure_of(operation: Operation, figure: str) -> float | None:
    """Give a figure of an operation; None where there are too few samples for it.

    Raises:
        KeyError: there is no such figure.
    """
    match figure:
        case "rate":
            return operation.rate
        case "errors":
            return float(operation.errors)
        case "timeouts":
            return float(operation.timeouts)
        case "error_rate":
            # what never found a connection was not sent, and is an error all the same
            wanted = operation.answered + operation.errors
            return 100 * operation.errors / wanted if wanted else None
    kind, _, name = figure.rpartition("_")
    histogram: Histogram = getattr(operation, kind or "response")
    return latency(histogram, name)


def latency(histogram: Histogram, name: str) -> float | None:
    """Give a percentile (``p99``) or ``max`` of a histogram in ns; None where there are too few samples for it."""
    counts = histogram.unpack()
    total = int(counts.sum())
    if name == "max":
        return float(histogram.maximum) if total else None
    percent = PERCENTS[name]
    if total < samples_needed(percent):
        return None
    return float(percentiles(counts, [percent], histogram.maximum or None)[0])


def text_of(value: float | None, unit: Unit, signed: bool = False) -> str:
    """Write a value for people: 1.25 ms, +38 us, 1,000/s."""
    if value is None:
        return "-"
    sign = "+" if signed else ""
    if unit != "ns":
        digits = 0 if abs(value) >= 100 or value == round(value) else 2
        return f"{value:{sign},.{digits}f}{'/s' if unit == '1/s' else '' if unit == '' else ' %'}"
    for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if abs(value) >= size * 0.9995:
            return (
                f"{value / size:{sign}.3g} {name}"
                if abs(value) < size * 999.5
                else f"{value / size:{sign}.0f} {name}"
            )
    return f"{value:{sign}.0f} ns"
