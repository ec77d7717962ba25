"""Tables of fixed columns that fit a width: which there is room for, order, filter, and where the cursor is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Generic, NamedTuple, TypeVar

from tvops.top.filter import filter_of
from tvops.top.lines import DASH, Line, Span, fit

Row = TypeVar("Row")


class Column(NamedTuple, Generic[Row]):
    """One column of a table."""

    key: str
    letter: str  # o and this letter sorts by it
    title: str
    width: int  # 0: what is left over
    text: Callable[[Row], Span | str]
    order: Callable[[Row], float | str | None] | None = None  # sorts by it; None comes last
    right: bool = True
    rank: int = 0  # columns of a higher rank are left out first


class Choice(NamedTuple):
    """What the user has chosen about a table."""

    sort: str = ""  # key of a column
    descending: bool = False
    cursor: int = 0
    top: int = 0  # first row that is shown
    hidden: frozenset[str] = frozenset()
    pattern: str = ""  # regular expression; ! at its begin turns it over


def columns_for(
    columns: Sequence[Column[Row]], width: int, hidden: frozenset[str], least: int = 8
) -> list[Column[Row]]:
    """Give the columns that fit into ``width``, with that of width 0 as wide as there is room (8 to 40)."""
    shown = [column for index, column in enumerate(columns) if column.key not in hidden or index == 0]
    while len(shown) > 1 and sum((column.width or least) + 1 for column in shown) > width:
        shown.remove(max(reversed(shown), key=lambda column: column.rank))
    left = width - sum(column.width + 1 for column in shown)
    return [column._replace(width=max(least, min(40, left))) if not column.width else column for column in shown]


def arrange(columns: Sequence[Column[Row]], rows: Sequence[Row], choice: Choice) -> list[Row]:
    """Give the rows that the filter lets through, in the order that was chosen."""
    kept = list(rows)
    if choice.pattern:
        texts = [" ".join(_text(column.text(row)) for column in columns) for row in rows]
        kept = list(compress(rows, filter_of(choice.pattern).keep(texts)))
    by = next((column for column in columns if column.key == choice.sort), None)
    if by is None or by.order is None:
        return kept
    order = by.order
    known = [row for row in kept if order(row) is not None]
    known.sort(key=lambda row: _key(order(row)), reverse=choice.descending)
    return known + [row for row in kept if order(row) is None]


def head(columns: Sequence[Column[Row]], choice: Choice) -> Line:
    """Give the line of titles; a click on one sorts."""
    spans = [Span(" ")]
    for column in columns:
        mark = ("▼" if choice.descending else "▲") if column.key == choice.sort else ""
        text = fit(f"{column.title[: column.width - len(mark)]}{mark}", column.width, column.right)
        spans += [Span(text, "head", f"sort {column.key}" if column.order else ""), Span(" ")]
    return tuple(spans)


def body(
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    height: int,
    choice: Choice,
    dim: Callable[[Row], bool] | None = None,
    cursor: bool = True,
) -> list[Line]:
    """Give the lines of the rows that fit into ``height``, around the cursor."""
    top = first_row(len(rows), height, choice)
    lines = []
    for index, row in enumerate(rows[top : top + height], top):
        faded = dim is not None and dim(row)
        here = cursor and index == choice.cursor
        action = f"row {index}"
        spans = [Span("▸" if here else " ", "cursor" if here else "", action)]
        for column in columns:
            made = column.text(row)
            span = made if isinstance(made, Span) else Span(made)
            role = "dim" if faded or span.text == DASH else span.role or ("cursor" if here else "")
            text = span.text[-column.width :] if column.key == "trend" else span.text  # the newest are at its end
            spans.append(Span(fit(text, column.width, column.right) + " ", role, action))
        lines.append(tuple(spans))
    return lines


def listing(columns: Sequence[Column[Row]], rows: Sequence[tuple[Row, bool]], width: int) -> list[Line]:
    """Give a table of all rows, without a cursor; those that are not fresh are dimmed. No lines without rows."""
    if not rows:
        return []
    stale = {id(row) for row, fresh in rows if not fresh}
    shown = columns_for(columns, width - 2, frozenset())
    choice, listed = Choice(cursor=-1), [row for row, _ in rows]
    lines = body(shown, listed, len(listed), choice, lambda row: id(row) in stale, cursor=False)
    return [head(shown, choice), *lines]


def first_row(count: int, height: int, choice: Choice) -> int:
    """Give the first row to show, so that the cursor is among those that fit."""
    top = min(max(choice.top, choice.cursor - height + 1, 0), max(0, count - height))
    return min(top, max(0, choice.cursor))


def page(lines: Sequence[Line], at: int, marked: bool, height: int) -> list[Line]:
    """Give ``height`` lines of a longer page: the first ones, or those that end with line ``at``.

    That line is ``marked`` where the cursor is on it and no table does so.
    """
    shown = list(lines)
    if marked and at < len(shown):
        shown[at] = _pointed(shown[at])
    top = max(0, at - height + 1)
    return shown[top : top + height]


def _pointed(line: Line) -> Line:
    first, rest = (line[0], line[1:]) if line else (Span(""), ())
    return (Span("▸", "cursor"), first._replace(text=first.text[1:]), *rest)


def _text(made: Span | str) -> str:
    return made if isinstance(made, str) else made.text


def _key(value: float | str | None) -> tuple[int, float, str]:
    return (1, 0.0, value) if isinstance(value, str) else (0, value or 0.0, "")
