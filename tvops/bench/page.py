"""The pieces of an HTML report: one file without scripts, fonts or anything else from elsewhere.

Everything that comes out of a result is escaped here: results are files, and files may come from anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from tvops.bench.charts import COLOURS, Curve
from tvops.tuning.fingerprint import Fingerprint
from tvops.whole_files import SHARED, write_whole

_NO_NETWORK: Final = "default-src 'none'; style-src 'unsafe-inline'"
_TONES: Final = {
    "passed": "good", "better": "good", "ok": "good", "missed": "bad", "worse": "bad", "failed": "bad",
    "void": "warn", "partial": "warn",
}  # fmt: skip


class Cell(msgspec.Struct, frozen=True):
    """A table's cell that is more than a figure."""

    text: str
    tone: str = ""  # good, bad, text (left-aligned, may wrap)


def document(title: str, verdict: str, meta: str, parts: Iterable[str], version: str) -> str:
    """Give a whole page."""
    style = files("tvops.bench").joinpath("report.css").read_text()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_NO_NETWORK}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1>{pill(verdict)}</header>"
        f'<p class="meta">{escape(meta)}</p>{"".join(parts)}'
        f"<footer>Written by tvops {escape(version)}.</footer></main></body></html>\n"
    )


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all; raise UsageError where that is not possible."""
    write_whole(path, page.encode(), SHARED)


def pill(verdict: str) -> str:
    """Give a verdict in its colour."""
    return f'<span class="pill {_TONES.get(verdict, "")}">{escape(verdict)}</span>'


def heading(text: str) -> str:
    """Give the heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, soft: bool = False) -> str:
    """Give a paragraph."""
    tone = ' class="soft"' if soft else ""
    return f"<p{tone}>{escape(text)}</p>"


def notes(texts: Sequence[str]) -> str:
    """Give what has to be read first; nothing where there is none."""
    return f'<ul class="notes">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>' if texts else ""


def tiles(values: Iterable[tuple[str, str]]) -> str:
    """Give big figures, each with what it is."""
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in values
    )
    return f'<div class="tiles">{cells}</div>'


def charts(cards: Iterable[str]) -> str:
    """Put charts side by side where there is room."""
    return f'<div class="charts">{"".join(cards)}</div>'


def card(title: str, drawing: str, curves: Sequence[Curve] = (), wide: bool = False) -> str:
    """Give a chart with its title and legend."""
    legend = "".join(
        f'<span><i class="c{(curve.colour - 1) % COLOURS + 1}{" dashed" if curve.dashed else ""}'
        f'{" dots" if curve.dots else ""}"></i>{escape(curve.name)}</span>'
        for curve in curves
    )
    size = " wide" if wide else ""
    return f'<div class="card{size}"><h3>{escape(title)}</h3><div class="legend">{legend}</div>{drawing}</div>'


def table(head: Sequence[str | Cell], rows: Iterable[Sequence[str | Cell]]) -> str:
    """Give a table; nothing where it has no rows."""
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    if not body:
        return ""
    return f'<div class="scroll"><table><tr>{"".join(_cell(name, "th") for name in head)}</tr>{body}</table></div>'


def _cell(value: str | Cell, tag: str = "td") -> str:
    if isinstance(value, str):
        return f"<{tag}>{escape(value)}</{tag}>"
    return f'<{tag} class="{value.tone}">{escape(value.text)}</{tag}>'


def folded(title: str, content: str) -> str:
    """Give a part that is closed until somebody opens it."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def host_section(fingerprint: Fingerprint | None) -> str:
    """Give what is known of the host."""
    if fingerprint is None:
        return heading("The host") + paragraph("No fingerprint was taken.")
    rows = [
        (name.replace("_", " "), Cell(_value(value), "text"))
        for name, value in msgspec.structs.asdict(fingerprint).items()
        if value
    ]
    short = " · ".join(filter(None, (fingerprint.cpu, fingerprint.cpus, fingerprint.kernel, fingerprint.virtual)))
    whole = folded("Fingerprint", table(("property", Cell("value", "text")), rows))
    return heading("The host") + paragraph(short) + whole


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {one}" for name, one in value.items())
    if isinstance(value, tuple | list):
        return " ".join(str(one) for one in value)
    return str(value)


def moment(nanoseconds: int) -> str:
    """Give a time in UTC."""
    try:
        return f"{datetime.fromtimestamp(nanoseconds / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"
