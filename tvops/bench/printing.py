"""A result as text: one line per operation, the verdict, and what a reader has to know."""

from __future__ import annotations

from collections.abc import Iterator

from tvops.bench.figures import figure_of, text_of
from tvops.bench.result import Check, Operation, Result

_COLUMNS = (
    ("operation", ""), ("n", ""), ("errors", ""), ("p50", "p50"), ("p99", "p99"), ("p99.9", "p99.9"),
    ("max", "max"), ("svc p50", "service_p50"), ("svc p99", "service_p99"), ("svc max", "service_max"),
    ("late p99", "lateness_p99"), ("rate/s", ""),
)  # fmt: skip


def render(result: Result) -> str:
    """Give the report of a run."""
    return "\n".join(_lines(result))


def _lines(result: Result) -> Iterator[str]:
    where = "a stack of its own" if result.spawned else ", ".join(result.targets_of.values())
    yield f"{result.name}: {result.loop} loop, {result.seconds:g} s after {result.warm_up:g} s warm-up, on {where}"
    yield ""
    rows = [[name for name, _ in _COLUMNS], *(_row(operation) for operation in result.operations)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "  ".join(cells).rstrip()
    yield ""
    yield from _details(result)
    for step in result.steps:
        state = "void" if step.void else "kept" if step.kept else "missed"
        p99 = text_of(step.response_p99, "ns")
        yield f"step {step.rate:,.0f}/s: {state}, {step.achieved:,.0f}/s answered, p99 {p99}, {step.errors} errors"
    for check in result.checks:
        yield _check(check)
    for note in result.notes:
        yield f"note: {note}"
    yield _verdict(result)


def _row(operation: Operation) -> list[str]:
    row = []
    for name, figure in _COLUMNS:
        if figure:
            row.append(text_of(figure_of(operation, figure), "ns"))
        elif name == "operation":
            row.append(operation.key)
        elif name == "n":
            row.append(f"{operation.answered + operation.errors:,}")
        elif name == "errors":
            row.append(f"{operation.errors:,}")
        else:
            row.append(f"{operation.rate:,.1f}")
    return row


def _details(result: Result) -> Iterator[str]:
    for operation in result.operations:
        failed = {
            name: n for name, n in operation.outcomes.items() if not name.startswith("2") and name != "message"
        }
        if failed:
            yield f"{operation.key}: " + ", ".join(f"{count:,} x {name}" for name, count in failed.items())
        if operation.figures:
            yield f"{operation.key}: " + ", ".join(
                f"{name} {value:,.4g}" for name, value in operation.figures.items()
            )


def _check(check: Check) -> str:
    seen = "no data" if check.seen is None else f"{check.seen:,.4g}"
    sign = ">=" if check.figure == "rate_percent" else "<="
    detail = f" ({check.detail})" if check.detail else ""
    state = "ok  " if check.met else "MISS"
    return f"{state} {check.about} {check.figure} {seen}, wanted {sign} {check.limit:g}{detail}"


def _verdict(result: Result) -> str:
    reasons = "; ".join(filter(None, (result.void, result.partial)))
    return f"verdict: {result.verdict}" + (f": {reasons}" if reasons else "")
