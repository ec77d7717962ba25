"""HTML reports of an A/B experiment, and of what a host carries."""

from __future__ import annotations

import numpy as np

from tvops.bench import page
from tvops.bench.ab import Ab, AbFigure
from tvops.bench.capacity import Capacity, Dimension
from tvops.bench.capacity_text import notes, sentences
from tvops.bench.charts import (
    WIDE,
    Curve,
    Interval,
    Mark,
    interval_chart,
    load_chart,
    percentile_chart,
    percentile_points,
)
from tvops.bench.figures import text_of
from tvops.bench.report import scenario_section
from tvops.bench.scaling import Estimate


def ab_page(ab: Ab) -> str:
    """Give the report of an A/B experiment."""
    latencies = [figure for figure in ab.figures if figure.unit == "ns"]
    cards = []
    if latencies:
        cards.append(
            page.card(
                "B against A in ms: interval of the paired differences, over what A/A differed by (grey)",
                interval_chart([_interval(figure) for figure in latencies], "ms"),
                wide=True,
            )
        )
    for curves_of in ab.curves:
        curves = [
            Curve(name="A", colour=1, points=percentile_points(curves_of.before)),
            Curve(name="B", colour=2, points=percentile_points(curves_of.after)),
        ]
        cards.append(
            page.card(f"{curves_of.operation}: all samples", percentile_chart(curves, WIDE), curves, wide=True)
        )
    parts = [
        page.notes([*([ab.void] if ab.void else []), *ab.notes, *ab.dropped]),
        page.paragraph(f"A: {ab.a}"),
        page.paragraph(f"B: {ab.b}"),
        page.paragraph(
            f"{ab.pairs} pairs in random order, and {ab.control_pairs} of A against A as the control.", True
        ),
        page.charts(cards),
        page.heading("Figures"),
        page.table(
            (
                "operation",
                "figure",
                "A",
                "B",
                "difference",
                "95 %",
                "p",
                "A/A",
                "seen from",
                page.Cell("", "text"),
            ),
            [_ab_row(figure) for figure in ab.figures],
        ),
        page.paragraph(
            "Differences are 20 % trimmed means over the pairs, with bootstrap intervals; p is that of the exact "
            "signed-rank test, corrected after Holm. Better or worse: p below 0.05, the interval excludes 0, and "
            "the difference is larger than what A/A differed by. No measurable difference says that it is, if "
            "any, likely smaller than the one that would be seen with a chance of 80 %; not that there is none.",
            soft=True,
        ),
        page.host_section(ab.fingerprint),
        scenario_section(ab.scenario),
    ]
    meta = f"{page.moment(ab.started)} · {ab.seconds:.0f} s · seed {ab.seed}"
    return page.document("tvops bench: A against B", ab.verdict, meta, parts, ab.version)


def _tone(figure: AbFigure) -> str:
    return {"better": "good", "worse": "bad"}.get(figure.verdict, "even")


def _interval(figure: AbFigure) -> Interval:
    percent = figure.percent(figure.difference)
    return Interval(
        name=f"{figure.operation} {figure.figure}", value=figure.difference / 1e6, low=figure.low / 1e6,
        high=figure.high / 1e6, floor=figure.floor / 1e6, colour=_tone(figure),
        text="no difference" if _tone(figure) == "even" else f"{figure.verdict} {percent:+.1f} %",
    )  # fmt: skip


def _ab_row(figure: AbFigure) -> tuple[str | page.Cell, ...]:
    def signed(value: float) -> str:
        return text_of(value, figure.unit, signed=True)

    seen = figure.percent(figure.detectable)
    return (
        figure.operation, figure.figure, text_of(figure.before, figure.unit), text_of(figure.after, figure.unit),
        signed(figure.difference), f"{signed(figure.low)} … {signed(figure.high)}", f"{figure.p:.3g}",
        text_of(figure.floor, figure.unit),
        text_of(figure.detectable, figure.unit) + ("" if seen is None else f" ({seen:.1f} %)"),
        page.Cell(figure.verdict, f"text {_tone(figure)}"),
    )  # fmt: skip


def capacity_page(capacity: Capacity) -> str:
    """Give the report of a host's capacity."""
    parts = [
        page.tiles(
            (f"{d.name} inside the targets", "none" if d.carried is None else f"{d.carried.value:,.0f}")
            for d in capacity.dimensions
        ),
        page.notes(notes(capacity)),
        *(part for dimension in capacity.dimensions for part in _dimension(dimension)),
        page.heading("Targets"),
        *(page.paragraph(target) for target in capacity.targets),
        page.host_section(capacity.fingerprint),
    ]
    meta = (
        f"{page.moment(capacity.started)} · {capacity.cores} cores · {capacity.seconds:g} s a step · "
        f"seed {capacity.seed}"
    )
    return page.document("tvops bench: what this host carries", "measured", meta, parts, capacity.version)


def _dimension(dimension: Dimension) -> list[str]:
    cards = [_steps_card(dimension)]
    if dimension.scaling is not None:
        cards.append(_scaling_card(dimension))
    rows = [
        (f"{s.load:,.0f}", f"{s.achieved:,.0f}", text_of(s.response_p99, "ns"),
         "-" if s.busy is None else f"{s.busy:.2f}",
         "-" if s.busiest is None else f"{s.busiest:.2f} ({s.process})",
         page.Cell(s.void or s.why or ("kept" if s.kept else "missed"), "text"))
        for s in dimension.steps
    ]  # fmt: skip
    head = (
        f"offered, {dimension.unit}",
        "carried",
        "p99",
        "busy cores",
        "busiest process",
        page.Cell("targets", "text"),
    )
    return [
        page.heading(dimension.name.capitalize()),
        *(page.paragraph(sentence) for sentence in sentences(dimension)),
        page.charts(cards),
        "<h2></h2>" + page.table(head, rows),
    ]


def _steps_card(dimension: Dimension) -> str:
    steps = dimension.steps
    curves = [
        Curve(name="offered", colour=6, dashed=True, points=((0.0, 0.0), *((s.load, s.load) for s in steps))),
        Curve(name="kept the targets", colour=3, dots=True,
              points=tuple((s.load, s.achieved) for s in steps if s.kept and not s.void)),
        Curve(name="did not, or is void", colour=5, dots=True,
              points=tuple((s.load, s.achieved) for s in steps if not s.kept or s.void)),
    ]  # fmt: skip
    marks = (
        [Mark(dimension.carried.value, f"{dimension.carried.value:,.0f}", upright=True)]
        if dimension.carried
        else []
    )
    drawing = load_chart(curves, f"offered, {dimension.unit}", f"carried, {dimension.unit}", marks)
    return page.card("Carried by offered load", drawing, [curve for curve in curves if curve.points])


def _scaling_card(dimension: Dimension) -> str:
    scaling = dimension.scaling
    assert scaling is not None
    loads = np.linspace(scaling.largest_load / 60, scaling.largest_load * 2, 60)
    fitted: list[tuple[float, Estimate]] = [(float(load), scaling.at(float(load))) for load in loads]
    curves = [
        Curve(name="measured", colour=1, dots=True,
              points=tuple((p.load, p.rate) for p in dimension.scaling_points)),
        Curve(name="scalability law, 95 %", colour=2, points=tuple((x, e.value) for x, e in fitted),
              band=tuple((x, e.low, e.high) for x, e in fitted)),
    ]  # fmt: skip
    marks = [Mark(scaling.largest_load, "not measured from here on", upright=True)]
    drawing = load_chart(curves, dimension.scaling_unit, dimension.unit, marks)
    return page.card("Throughput by what is under way at once", drawing, curves)
