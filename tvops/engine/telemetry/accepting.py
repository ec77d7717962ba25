"""What the reader of a document wants it as, by its Accept header (RFC 9110, 12.4 and 12.5.1)."""

from __future__ import annotations

import re

_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def prefers(header: str, kind: str, usual: str) -> bool:
    """Tell whether a reader wants ``kind`` rather than ``usual``, which it gets where it says nothing.

    It has to name ``kind``, for a wildcard asks for nothing in particular, and want it no less than ``usual``.
    A quality that is none counts as 0. Both types in small letters, without parameters.
    """
    wanted = dict(_quality(part) for part in header.lower().split(","))
    whole = f"{usual.partition('/')[0]}/*"
    of_usual = next((wanted[name] for name in (usual, whole, "*/*") if name in wanted), 0.0)
    return wanted.get(kind, 0.0) > 0 and wanted[kind] >= of_usual


def _quality(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip() for piece in part.split(";"))
    quality = next((text.removeprefix("q=") for text in parameters if text.startswith("q=")), "1")
    return kind, float(quality) if _QUALITY.fullmatch(quality) else 0.0
