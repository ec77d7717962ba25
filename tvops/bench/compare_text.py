"""Comparisons and experiments as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tvops.bench.ab import Ab
from tvops.bench.compare import Compared
from tvops.bench.figures import text_of
from tvops.bench.page import moment
from tvops.bench.store import Saved


def compared_text(compared: Compared) -> str:
    """Write a comparison: every figure, what to beware of, and the conditions."""
    lines = [
        f"{name}  {side.source}: {side.name}, {moment(side.started)}, {side.seconds:g} s, host {side.host or '?'}"
        for name, side in (("A", compared.before), ("B", compared.after))
    ]
    rows = [("operation", "figure", "A", "B", "difference", "%", "per second, 95 %")]
    for line in compared.lines:
        interval = ""
        if line.low is not None and line.high is not None:
            ends = [text_of(end, line.unit, signed=True) for end in (line.low, line.high)]
            interval = f"{ends[0]} … {ends[1]}{' *' if line.clear else ''}"
        rows.append(
            (line.operation, line.figure, text_of(line.before, line.unit), text_of(line.after, line.unit),
             text_of(line.difference, line.unit, signed=True),
             "" if line.percent is None else f"{line.percent:+.1f} %", interval)
        )  # fmt: skip
    lines += ["", *aligned(rows), ""]
    lines += (
        ["* the seconds of A and B differ by more than they vary"] if any(x.clear for x in compared.lines) else []
    )
    lines += [*(f"warning: {warning}" for warning in compared.warnings), f"note: {compared.caveat}"]
    lines += [
        f"{'FAIL' if outcome.met else 'ok  '} {outcome.condition} {outcome.operation}: {outcome.detail}"
        for outcome in compared.conditions
    ]
    return "\n".join(lines)


def ab_text(ab: Ab) -> str:
    """Write an experiment: what differs, and what would have been seen."""
    lines = [
        f"A  {ab.a}", f"B  {ab.b}",
        f"{ab.pairs} pairs in random order, {ab.control_pairs} of A against A, seed {ab.seed}, {ab.seconds:.0f} s",
    ]  # fmt: skip
    rows = [("operation", "figure", "A", "B", "B - A", "95 %", "p", "A/A", "seen from", "verdict")]
    for figure in ab.figures:
        unit = figure.unit
        ends = [text_of(end, unit, signed=True) for end in (figure.low, figure.high)]
        rows.append(
            (figure.operation, figure.figure, text_of(figure.before, unit), text_of(figure.after, unit),
             text_of(figure.difference, unit, signed=True), f"{ends[0]} … {ends[1]}", f"{figure.p:.3g}",
             text_of(figure.floor, unit), text_of(figure.detectable, unit), figure.verdict)
        )  # fmt: skip
    lines += ["", *aligned(rows), ""] if ab.figures else [""]
    lines += [f"dropped: {why}" for why in ab.dropped] + [f"note: {note}" for note in ab.notes]
    return "\n".join([*lines, f"verdict: {ab.verdict}{f': {ab.void}' if ab.void else ''}"])


def saved_text(saved: Sequence[Saved]) -> str:
    """Write the list of saved results."""
    if not saved:
        return "nothing is saved yet; tvops bench … --save NAME does"
    rows = [("name", "scenario", "started", "seconds", "verdict", "host", "tvops")]
    rows += [
        (one.name, one.problem, "", "", "", "", "") if one.problem
        else (one.name, one.scenario, moment(one.started), f"{one.seconds:g}", one.verdict, one.host, one.version)
        for one in saved
    ]  # fmt: skip
    good = [row for row, one in zip(rows[1:], saved, strict=True) if not one.problem]
    return "\n".join([*aligned([rows[0], *good]), *(f"{one.name}: {one.problem}" for one in saved if one.problem)])


def aligned(rows: Sequence[Sequence[str]], left: Iterable[int] = (0, 1)) -> list[str]:
    """Put rows into columns: those in ``left`` to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    to_left = set(left)
    return [
        "  ".join(
            cell.ljust(width) if n in to_left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
