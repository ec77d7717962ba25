"""Processes as lines: in the overview and among the knobs."""

from __future__ import annotations

from functools import lru_cache

from tvops.engine.telemetry.document import Process
from tvops.terminal import clean
from tvops.top.lines import DASH, Line, Span, data_size, number
from tvops.top.scene import Scene
from tvops.top.table import Column, listing

PROCESS_COLUMNS: tuple[Column[Process], ...] = (
    Column("name", "n", "process", 20, lambda row: clean(row.name), lambda row: row.name, right=False),
    Column("pid", "i", "pid", 7, lambda row: str(row.pid), lambda row: row.pid, rank=1),
    Column("cpu", "c", "cpu", 6, lambda row: f"{row.cpu_percent:.1f}%", lambda row: row.cpu_percent),
    Column(
        "rss",
        "m",
        "rss",
        8,
        lambda row: Span(data_size(row.rss), "warn" if row.over_budget and not row.pss else ""),
        lambda row: row.rss,
    ),
    Column(
        "pss",
        "s",
        "pss",
        8,
        lambda row: Span(data_size(row.pss or None), "warn" if row.over_budget else ""),
        lambda row: row.pss,
        rank=2,
    ),
    Column("budget", "b", "budget", 8, lambda row: data_size(row.budget or None), lambda row: row.budget, rank=2),
    Column("growth", "g", "growth", 15, lambda row: _growth(row), lambda row: row.slope, rank=1),
    Column("threads", "t", "threads", 7, lambda row: str(row.threads), lambda row: row.threads, rank=4),
    Column("fds", "f", "files", 6, lambda row: str(row.descriptors), lambda row: row.descriptors, rank=3),
    Column(
        "switches",
        "w",
        "forced sw.",
        10,
        lambda row: number(row.involuntary_switches),
        lambda row: row.involuntary_switches,
        rank=4,
    ),
    Column("faults", "a", "faults", 7, lambda row: number(row.major_faults), lambda row: row.major_faults, rank=5),
)


def _growth(process: Process) -> Span:
    if process.slope is None:
        return Span(DASH, "dim")
    sign = "-" if process.slope < 0 else "+"
    text = f"{sign}{data_size(abs(process.slope) * 3600)}/h"
    return Span(f"LEAK {text}" if process.leaking else text, "warn" if process.leaking else "")


def process_lines(scene: Scene, width: int) -> list[Line]:
    """Give all processes."""
    known = [(seen.document, seen.fresh) for seen in scene.seen if seen.document]
    return list(_table(tuple((row, fresh) for document, fresh in known for row in document.processes), width))


@lru_cache(maxsize=8)
def _table(rows: tuple[tuple[Process, bool], ...], width: int) -> tuple[Line, ...]:
    """Give the lines; documents come four times a second, and what they say of processes changes once."""
    return tuple(listing(PROCESS_COLUMNS, rows, width))
