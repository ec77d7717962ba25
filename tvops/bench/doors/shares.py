"""Shares of the kinds of requests in a mix; what they add up to does not matter."""

from __future__ import annotations

from typing import Annotated

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]


def check_shares(mix: msgspec.Struct) -> None:
    """Raise ValueError where no share of a mix is above 0."""
    if not any(msgspec.structs.astuple(mix)):
        raise ValueError("at least one share has to be above 0")
