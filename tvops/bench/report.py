"""HTML reports of a run, and of two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tvops.bench import page
from tvops.bench.charts import (
    WIDE,
    Curve,
    Mark,
    Point,
    load_chart,
    percentile_chart,
    percentile_points,
    time_chart,
)
from tvops.bench.compare import Compared, Line
from tvops.bench.figures import figure_of, lower_is_better, text_of
from tvops.bench.result import Operation, Result

_TABLE = ("p50", "p90", "p99", "p99.9", "p99.99", "max")


def run_page(result: Result) -> str:
    """Give the report of one run."""
    parts = [
        page.notes(_warnings(result)),
        *(_tiles(operation) for operation in result.operations),
        page.heading("Latency"),
        page.charts(_latency_cards(result.operations)),
        page.heading("Over time, and the generator"),
        page.charts(_time_cards(result.operations)),
        page.heading("Figures"),
        _figures_table(result.operations),
        *_checks(result),
        *_knee(result),
        *_memory(result),
        *_generators(result),
        page.host_section(result.fingerprint),
        scenario_section(result.scenario),
    ]
    return page.document(f"tvops bench: {result.name}", result.verdict, _meta(result), parts, result.version)


def _meta(result: Result) -> str:
    where = ", ".join(f"{name} {address}" for name, address in result.targets_of.items())
    stack = "a stack of its own" if result.spawned else "a running stack"
    return (
        f"{page.moment(result.started)} · {result.seconds:g} s measured after {result.warm_up:g} s of warm-up · "
        f"{result.loop} loop · seed {result.seed} · {stack}: {where}"
    )


def _warnings(result: Result) -> list[str]:
    warnings = []
    if result.void:
        warnings.append(f"Void: {result.void}. Do not use these figures.")
    if result.partial:
        warnings.append(f"Not whole: {result.partial}.")
    return [*warnings, *result.notes]


def _tiles(operation: Operation) -> str:
    planned = [("planned", text_of(operation.planned_rate, "1/s"))] if operation.planned_rate else []
    values = [
        *planned,
        ("answered", text_of(operation.rate, "1/s")),
        *((name, text_of(figure_of(operation, name), "ns")) for name in ("p50", "p99", "p99.9", "max")),
        ("errors", f"{operation.errors:,}"),
        ("samples", f"{operation.response.unpack().sum():,}"),
    ]
    return page.heading(operation.key) + page.tiles(values)


def _latency_cards(operations: Sequence[Operation]) -> list[str]:
    curves = []
    for number, operation in enumerate(operations, 1):
        for kind, histogram in (("response", operation.response), ("service", operation.service)):
            points = percentile_points(histogram)
            name = f"{operation.key} {kind}"
            curves.append(Curve(name=name, colour=number, points=points, dashed=kind == "service"))
    return [
        page.card("Latency by percentile: from the intended sending, and from the actual one (dashed)",
                  percentile_chart(curves, WIDE), curves, wide=True),
    ]  # fmt: skip


def _time_cards(operations: Sequence[Operation]) -> list[str]:
    rates, tails, errors = [], [], []
    lateness = [
        Curve(name=operation.key, colour=number, points=percentile_points(operation.lateness))
        for number, operation in enumerate(operations, 1)
    ]
    for number, operation in enumerate(operations, 1):
        series = operation.series
        rates.append(Curve(name=operation.key, colour=number, points=_over_time(series.answered)))
        for name, column, dashed in (("p99", series.p99, False), ("p50", series.p50, True)):
            points = tuple((x, y / 1e6) for x, y in _over_time(column) if y)
            tails.append(Curve(name=f"{operation.key} {name}", colour=number, points=points, dashed=dashed))
        if any(series.errors):
            errors.append(Curve(name=operation.key, colour=number, points=_over_time(series.errors)))
    cards = [
        page.card("Answered per second", time_chart(rates, "1/s", latency=False), rates),
        page.card("p99 and p50 (dashed) of each second", time_chart(tails, "ms", latency=True), tails),
        page.card("Lateness of the generator by percentile", percentile_chart(lateness), lateness),
    ]
    if errors:
        cards.append(page.card("Errors per second", time_chart(errors, "1/s", latency=False), errors))
    return cards


def _over_time(column: Sequence[int]) -> tuple[tuple[float, float], ...]:
    return tuple((float(second), float(value)) for second, value in enumerate(column))


def _figures_table(operations: Sequence[Operation]) -> str:
    head = ("operation", "time", "n", *_TABLE)
    rows = []
    for operation in operations:
        for kind in ("response", "service", "lateness"):
            total = int(getattr(operation, kind).unpack().sum())
            names = [name if kind == "response" else f"{kind}_{name}" for name in _TABLE]
            values = [text_of(figure_of(operation, name), "ns") for name in names]
            rows.append((operation.key, kind, f"{total:,}", *values))
    outcomes = [
        (operation.key, name, f"{count:,}")
        for operation in operations
        for name, count in operation.outcomes.items()
    ]
    own = [
        (operation.key, name.replace("_", " "), f"{value:,g}")
        for operation in operations
        for name, value in operation.figures.items()
    ]
    return (
        page.table(head, rows)
        + page.paragraph("A percentile is left out where there are too few samples for it.", soft=True)
        + page.folded("Outcomes", page.table(("operation", "outcome", "count"), outcomes))
        + (page.folded("More figures", page.table(("operation", "figure", "value"), own)) if own else "")
    )


def _checks(result: Result) -> list[str]:
    if not result.checks:
        return []
    rows = [
        (check.about, check.figure, f"{check.limit:g}", "-" if check.seen is None else f"{check.seen:.4g}",
         page.Cell("met", "good") if check.met else page.Cell("missed", "bad"), page.Cell(check.detail, "text"))
        for check in result.checks
    ]  # fmt: skip
    head = ("of", "figure", "target", "seen", "", page.Cell("", "text"))
    return [page.heading("Targets"), page.table(head, rows)]


def _knee(result: Result) -> list[str]:
    if not result.steps:
        return []
    ideal = Curve(
        name="planned", colour=6, dashed=True, points=((0, 0), *((s.rate, s.rate) for s in result.steps))
    )
    kept = Curve(
        name="kept the targets", colour=3, dots=True,
        points=tuple((s.rate, s.achieved) for s in result.steps if s.kept),
    )  # fmt: skip
    lost = Curve(
        name="did not", colour=5, dots=True, points=tuple((s.rate, s.achieved) for s in result.steps if not s.kept)
    )
    curves = [ideal, kept, lost]
    marks = [Mark(result.knee, f"knee {result.knee:,.0f}/s", upright=True)] if result.knee else []
    rows = [
        (f"{s.rate:,.0f}/s", f"{s.achieved:,.0f}/s", text_of(s.response_p50, "ns"), text_of(s.response_p99, "ns"),
         f"{s.errors:,}", f"{s.busy:.0f} %" if s.busy else "-",
         page.Cell(s.void or ("kept" if s.kept else "missed"), "text"))
        for s in result.steps
    ]  # fmt: skip
    head = ("planned", "achieved", "p50", "p99", "errors", "busiest process", page.Cell("targets", "text"))
    drawing = load_chart(curves, "planned, 1/s", "achieved, 1/s", marks, WIDE)
    return [
        page.heading("The knee"), page.charts([page.card("Achieved by planned rate", drawing, curves, wide=True)]),
        page.table(head, rows),
    ]  # fmt: skip


def _memory(result: Result) -> list[str]:
    points: dict[str, list[Point]] = {}
    for sample in result.memory:
        points.setdefault(sample.process, []).append((sample.second, sample.bytes / 2**20))
    curves = [
        Curve(name=name, colour=number, points=tuple(own)) for number, (name, own) in enumerate(points.items(), 1)
    ]
    if not curves:
        return []
    drawing = time_chart(curves, "MiB", latency=False, width=WIDE)
    return [page.heading("Memory of the stack"), page.charts([page.card("MiB", drawing, curves, wide=True)])]


def _generators(result: Result) -> list[str]:
    rows = [
        (g.door, "shared" if g.core is None else f"core {g.core}", f"{g.cpu_percent:.0f} %",
         page.Cell(g.detail, "text"))
        for g in result.generators
    ]  # fmt: skip
    return (
        [page.heading("Generators"), page.table(("door", "ran on", "CPU", page.Cell("", "text")), rows)]
        if rows
        else []
    )


def scenario_section(scenario: dict[str, Any]) -> str:
    """Give the scenario, folded away."""
    rows = [(name, page.Cell(json.dumps(value, ensure_ascii=False), "text")) for name, value in scenario.items()]
    return (
        page.folded("The scenario as it was run", page.table(("key", page.Cell("value", "text")), rows))
        if rows
        else ""
    )


def compare_page(compared: Compared, before: Result, after: Result) -> str:
    """Give the report of two runs side by side."""
    verdict = ("failed" if compared.failed else "passed") if compared.conditions else "compared"
    a, b = compared.before, compared.after
    conditions = [
        (outcome.condition, outcome.operation, page.Cell(outcome.detail, "text"),
         page.Cell("met", "bad") if outcome.met else page.Cell("not met", "good"))
        for outcome in compared.conditions
    ]  # fmt: skip
    parts = [
        page.notes([*compared.warnings, compared.caveat]),
        *([page.heading("--fail-if")] if conditions else []),
        page.table(("condition", "operation", page.Cell("seen", "text"), ""), conditions),
        page.heading("Latency"),
        page.charts(_pair_cards(before, after)),
        page.heading("Figures"),
        page.table(
            ("operation", "figure", "A", "B", "difference", "%", "per second, 95 %"),
            [_compared_row(line) for line in compared.lines],
        ),
        page.paragraph(
            "The last column is the interval around the difference of the means over the seconds of each run "
            "(moving block bootstrap); coloured where it excludes 0.",
            soft=True,
        ),
        page.host_section(after.fingerprint),
        scenario_section(after.scenario),
    ]
    meta = " · ".join(
        f"{name}: {side.source}, {page.moment(side.started)}, {side.seconds:g} s"
        for name, side in (("A", a), ("B", b))
    )
    return page.document(f"tvops bench: {a.source} against {b.source}", verdict, meta, parts, b.version)


def _pair_cards(before: Result, after: Result) -> list[str]:
    cards = []
    for operation in before.operations:
        other = after.operation(operation.key)
        if other is None:
            continue
        curves = [
            Curve(name="A", colour=1, points=percentile_points(operation.response)),
            Curve(name="B", colour=2, points=percentile_points(other.response)),
        ]
        cards.append(page.card(f"{operation.key}: response by percentile", percentile_chart(curves), curves))
        tails = [
            Curve(name=name, colour=colour, points=tuple((x, y / 1e6) for x, y in _over_time(one.series.p99) if y))
            for name, colour, one in (("A", 1, operation), ("B", 2, other))
        ]
        cards.append(
            page.card(f"{operation.key}: p99 of each second", time_chart(tails, "ms", latency=True), tails)
        )
    return cards


def _compared_row(line: Line) -> tuple[str | page.Cell, ...]:
    worse = line.clear and line.difference is not None and (line.difference > 0) == lower_is_better(line.figure)
    tone = "" if not line.clear else "bad" if worse else "good"
    interval = ""
    if line.low is not None and line.high is not None:
        interval = f"{text_of(line.low, line.unit, True)} … {text_of(line.high, line.unit, True)}"
    return (
        line.operation, line.figure, text_of(line.before, line.unit), text_of(line.after, line.unit),
        text_of(line.difference, line.unit, signed=True), "" if line.percent is None else f"{line.percent:+.1f} %",
        page.Cell(interval, tone),
    )  # fmt: skip
