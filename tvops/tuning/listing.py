"""Plans, verdicts and histories as text for people and as JSON for scripts."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from tvops.json_text import json_indented
from tvops.terminal import printable
from tvops.tuning.model import ExitCode, Item
from tvops.tuning.setup import by_state

ORDER = ("failed", "stuck", "undone", "pending", "written", "refused", "privilege", "restart", "reboot", "serve",
         "unsupported", "skipped", "met")  # fmt: skip
TOLD = {
    "pending": "to change", "written": "changed", "failed": "failed", "undone": "undone again",
    "stuck": "could not be restored", "met": "as wanted", "privilege": "need root", "restart": "need a restart",
    "reboot": "need a reboot", "serve": "wait for tvops serve", "unsupported": "not supported here",
    "refused": "refused", "skipped": "left out",
}  # fmt: skip
COLOURS = {"failed": "red", "stuck": "red", "undone": "red", "refused": "red", "pending": "yellow",
           "written": "green", "met": "green", "privilege": "yellow", "restart": "yellow", "reboot": "yellow",
           "serve": "yellow"}  # fmt: skip
PLAIN_WIDTH = 4096
COLUMNS = ("knob", "current → wanted", "state", "risk", "scope", "why")
MOST_NAMED = 12  # knobs that are not supported here for one reason
REASON_WIDTH = 40
"""What the last column needs at least to be readable."""


def told(item: Item) -> str:
    """Give the word that stands for an item's outcome, or for its state."""
    return item.outcome or item.state


def summary(items: Sequence[Item]) -> str:
    """Count a plan in one line: `12 to change, 40 as wanted, 3 not supported here`."""
    counts = by_state(items)
    return ", ".join(f"{counts[key]} {TOLD[key]}" for key in ORDER if key in counts) or "nothing wanted"


def gather(items: Sequence[Item]) -> list[tuple[str, Item]]:
    """Join places of one knob that say the same: (`irq.smp_affinity@irq24 … irq43 (18)`, one of them)."""
    groups: dict[tuple[object, ...], list[Item]] = {}
    for item in items:
        key = (item.knob, item.current, item.value, item.wanted, told(item), item.reason)
        groups.setdefault(key, []).append(item)
    rows = []
    for same in groups.values():
        label = same[0].id
        if len(same) > 1:
            label += f" … {same[-1].place.name} ({len(same)})"
        rows.append((label, same[0]))
    return sorted(rows, key=lambda row: ORDER.index(told(row[1])))


def print_plan(items: Sequence[Item], everything: bool) -> None:
    """Print a plan: a table of what there is to do, and what is not supported here in a line per reason.

    With ``everything`` all of it stands in the table, what is as wanted and what is left out too.
    """
    rows = gather(items)
    _print_table([row for row in rows if everything or told(row[1]) not in ("met", "skipped", "unsupported")])
    if everything:
        return
    reasons: dict[str, list[str]] = {}
    for label, item in rows:
        if told(item) == "unsupported":
            reasons.setdefault(item.reason, []).append(label)
    for reason, labels in reasons.items():
        shown = labels if len(labels) <= MOST_NAMED else labels[: MOST_NAMED - 1]
        more = f" and {len(labels) - len(shown)} more (--all lists them)" if shown is not labels else ""
        console().print(printable(f"{reason}: {', '.join(shown)}{more}"), markup=False)


def _print_table(rows: Sequence[tuple[str, Item]]) -> None:
    """Print a row per knob; where that leaves no room for the reason, two lines per knob."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    out = console()
    cells = [
        tuple(map(printable, (label, change(item), told(item), item.risk, item.scope, _reason(item))))
        for label, item in rows
    ]
    widths = [max(len(cell) for cell in column) for column in zip(COLUMNS, *cells, strict=True)][:-1]
    if out.width >= sum(widths) + 2 * len(widths) + REASON_WIDTH:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in COLUMNS:
            table.add_column(name, no_wrap=name != COLUMNS[-1], overflow="fold")
        for label, changed, state, *more in cells:
            table.add_row(Text(label), Text(changed), Text(state, _colour(state)), *map(Text, more))
        out.print(table)
        return
    for label, changed, state, risk, scope, reason in cells:
        out.print(Text.assemble((label, "bold"), "  ", changed), overflow="fold")
        text = Text.assemble((state, _colour(state)), ", ", risk, ", ", scope, ": " if reason else "", reason)
        out.print(Padding(text, (0, 0, 0, 4)))


def _reason(item: Item) -> str:
    return f"{item.reason}; {item.why}" if item.reason and item.why else item.reason or item.why


def _colour(state: str) -> str:
    return COLOURS.get(state, "default")


def change(item: Item) -> str:
    """Give `current → wanted` of an item, with the profile's own words where they say more."""
    now = item.current if item.before is None else item.before
    current = "?" if now is None else now or "(none)"
    if item.value == now:
        return current
    value = item.value if item.value or now is not None else item.wanted
    extra = f" ({item.wanted})" if item.wanted.startswith((">", "<", "$")) and item.wanted != value else ""
    return f"{current} → {value or '(none)'}{extra}"


def diff_lines(items: Sequence[Item]) -> list[str]:
    """Give what differs, or was changed, in the form of a diff."""
    lines: list[str] = []
    for item in items:
        if told(item) in ("pending", "written", "reboot", "restart", "privilege", "serve"):
            before = item.current if item.before is None else item.before
            lines += f"@@ {item.id}", f"-{before or ''}", f"+{item.value}"
    return lines


def console() -> Any:
    """Give a console for stdout: the terminal's width there, no folding in a pipe."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the command line, whose exit code for it is not that of a failure."""
            raise BrokenPipeError

    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
    return Piped(width=wide, highlight=False, soft_wrap=False)


def as_json(profile: str, items: Sequence[Item], code: ExitCode, **more: object) -> bytes:
    """Give a plan or a run as JSON, as docs/tune.md describes it."""
    rows = [{"id": item.id, **msgspec.structs.asdict(item)} for item in items]
    document = {
        "schema": 1,
        "profile": profile,
        "exit_code": int(code),
        "verdict": code.name.lower(),
        "counts": by_state(items),
        **more,
        "items": rows,
    }
    return json_indented(document)
