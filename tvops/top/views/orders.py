"""The way of an order: what comes in, each stage with its latency, and what is counted on the way."""

from __future__ import annotations

from typing import Any

from tvops.terminal import clean
from tvops.top.lines import Line, Span, duration, number, spark, title
from tvops.top.model import Seen
from tvops.top.scene import Scene
from tvops.top.table import Column, arrange, body, columns_for, head
from tvops.top.views.stages import stage_rows

PATH = ("gateway_to_durable", "durable_to_matched", "gateway_to_reply")
Row = tuple[Seen, str, str, float]


class Orders:
    """Stages of the order path, then every figure of the gateway and the engine with how fast it grows."""

    name, letter = "orders", "5"
    columns: tuple[Column[Any], ...] = (
        Column(
            "name", "n", "figure", 28, lambda row: clean(row[2].replace("_", " ")), lambda row: row[2], right=False
        ),
        Column(
            "service", "s", "service", 8, lambda row: Span(clean(row[1]), "dim"), lambda row: row[1], right=False
        ),
        Column("value", "v", "value", 10, lambda row: number(row[3]), lambda row: row[3]),
        Column("rate", "r", "per s", 8, lambda row: number(_rate(row)), lambda row: _rate(row)),
        Column("trend", "t", "trend", 0, lambda row: Span(spark(_trend(row), 40), "bar"), None),
    )

    def count(self, scene: Scene) -> int:
        """Give the number of figures."""
        return len(arrange(self.columns, _rows(scene), scene.choice))

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give the path above, the figures below."""
        lines = [title("path of an order", width), *_path(scene), ()]
        columns = columns_for(self.columns, width - 2, scene.choice.hidden)
        rows = arrange(columns, _rows(scene), scene.choice)
        lines += [title("figures", width), head(columns, scene.choice)]
        if not rows:
            return [*lines, (Span("  no gateway or engine among the ports that are watched", "dim"),)]
        return [
            *lines,
            *body(columns, rows, max(1, height - len(lines)), scene.choice, lambda row: not row[0].fresh),
        ]


def _path(scene: Scene) -> list[Line]:
    rows = {row.name: row for row in stage_rows(scene, PATH.__contains__)}
    lines: list[Line] = []
    for name in PATH:
        row = rows.get(name)
        label = Span(f" {name.replace('_', ' '):<22}", "head")
        if row is None or not row.total:
            lines.append((label, Span("no samples", "dim")))
            continue
        faded = "" if row.seen.fresh else "dim"
        figures = [
            ("per s", number(row.rate)),
            ("p50", duration(row.percent.get(50.0))),
            ("p99", duration(row.percent.get(99.0))),
            ("max", duration(row.maximum)),
        ]
        lines.append(
            (
                label,
                *(
                    span
                    for text, figure in figures
                    for span in (Span(f"{text} ", "dim"), Span(f"{figure:<9}", faded))
                ),
            )
        )
    return lines


def _rows(scene: Scene) -> list[Row]:
    return [
        (seen, service, name, float(value))
        for seen in scene.seen
        for service in ("gateway", "engine")
        for name, value in seen.figures(service).items()
        if isinstance(value, int | float)
    ]


def _rate(row: Row) -> float | None:
    return row[0].source.rate(row[0].until, row[1], row[2])


def _trend(row: Row) -> list[float]:
    return row[0].source.trend(f"rate.{row[1]}.{row[2]}", row[0].until, 40)
