"""The ladder of a book: asks above, bids below, each level with its share of what stands."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from tvops.terminal import clean
from tvops.top.lines import Line, Span, fit, gauge, span_of, title
from tvops.top.model import STALE_NS
from tvops.top.scene import Depth, Scene
from tvops.top.table import Column


class BookLadder:
    """The best levels of one symbol; the cursor chooses which."""

    name, letter = "book", "6"
    columns: tuple[Column[str], ...] = ()

    def count(self, scene: Scene) -> int:
        """Give the number of symbols."""
        return len(scene.book.symbols)

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give the ladder of the symbol that is chosen."""
        book = scene.book
        lines = [_symbols(scene, width)]
        if book.error:
            lines.append((Span(f"  {clean(book.error)}", "warn"),))
        if book.depth is None:
            return lines if book.error else [*lines, (Span("  asks the gateway for the book", "dim"),)]
        age = scene.moment.now - book.received
        stale = age > STALE_NS
        note = f"{span_of(age / 1e9)} old" if stale else _spread(book.depth)
        room = max(1, (height - len(lines) - 3) // 2)
        lines += [
            title(clean(book.depth.symbol), width, note),
            *_ladder(book.depth, room, width, stale, scene.ascii_only),
        ]
        return lines[:height]


def _symbols(scene: Scene, width: int) -> Line:
    spans, used = [Span(" ")], 1
    symbols = scene.book.symbols
    chosen = symbols.index(scene.symbol) if scene.symbol in symbols else 0
    for index, symbol in enumerate(symbols[max(0, chosen - 3) :], max(0, chosen - 3)):
        text = f" {clean(symbol)} "
        if used + len(text) > width:
            break
        spans.append(Span(text, "tab" if index == chosen else "dim", f"row {index}"))
        used += len(text)
    return tuple(spans)


def _ladder(depth: Depth, room: int, width: int, stale: bool, ascii_only: bool) -> list[Line]:
    bids, asks = depth.bids[:room], depth.asks[:room]
    sizes = [_decimal(level[1]) for level in (*bids, *asks)]
    largest = max(sizes, default=Decimal(0)) or Decimal(1)
    bar = max(8, min(60, width - 46))
    heading = (Span(f"  {'price':>14} {'quantity':>14} {'orders':>7}", "head"),)
    lines: list[Line] = [heading]
    for side, levels in (("ask", list(reversed(asks))), ("bid", bids)):
        for price, quantity, orders in levels:
            share = float(_decimal(quantity) / largest)
            text = f"  {fit(clean(price), 14, True)} {fit(clean(quantity), 14, True)} {orders:>7}  "
            lines.append(
                (
                    Span(text, "dim" if stale else ""),
                    Span(gauge(share, bar, ascii_only), "dim" if stale or side == "ask" else "bar"),
                )
            )
        if side == "ask":
            lines.append((Span(f"  {'·' * 37}", "dim"),))
    return lines


def _spread(depth: Depth) -> str:
    if not depth.bids or not depth.asks:
        return "one side is empty" if depth.bids or depth.asks else "the book is empty"
    bid, ask = _decimal(depth.bids[0][0]), _decimal(depth.asks[0][0])
    basis = (ask - bid) / ((ask + bid) / 2) * 10_000 if ask + bid else Decimal(0)
    return f"spread {ask - bid} ({basis:.1f} bp)"


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return Decimal(0)
    return value if value.is_finite() else Decimal(0)
