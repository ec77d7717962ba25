"""Which instruments and limits the settings have put into the ledger: what a start compares its settings with.

Limits that somebody sets at run time are not noted here: they hold until the settings themselves change.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tvops.engine.records import EventKind, Kind

SETTINGS_ID = b"tvops:settings"
"""`client_id` of the commands that come from the settings."""

_FIRST_RARE = int(Kind.SET_LIMIT)


class _State(msgspec.Struct):
    instruments: dict[int, tuple[int, int, int]] = {}  # index -> lowest tick, ticks, scale digest
    limits: dict[tuple[int, int, int], int] = {}  # Limit, account, instrument -> value


class Configuration:
    """Instruments by DEFINE, and limits by SET_LIMIT with `SETTINGS_ID`, as far as the engine took them."""

    def __init__(self) -> None:
        self._state = _State()

    def instruments(self) -> dict[int, tuple[int, int, int]]:
        """Give index -> lowest tick, number of ticks, scale digest."""
        return self._state.instruments

    def limit(self, limit: int, account: int, instrument: int) -> int:
        """Give the value that the settings last set for exactly these; 0 where they set none."""
        return self._state.limits.get((limit, account, instrument), 0)

    def apply(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        """Take in a batch of COMMAND rows and the EVENT rows that the engine made of them."""
        if commands["kind"].max() < _FIRST_RARE:
            return
        rare = commands["kind"] >= _FIRST_RARE
        done = events["command_seq"][events["kind"] == EventKind.DONE]
        for command in commands[rare & np.isin(commands["seq"], done)]:
            if command["kind"] == Kind.DEFINE:
                ladder = (int(command["price"]), int(command["quantity"]), int(command["order_id"]))
                self._state.instruments[int(command["instrument"])] = ladder
            elif command["kind"] == Kind.SET_LIMIT and command["client_id"] == SETTINGS_ID:
                key = (int(command["param"]), int(command["account"]), int(command["instrument"]))
                self._state.limits[key] = int(command["quantity"])

    def export(self) -> bytes:
        """Give the state as bytes, the same for the same history."""
        return msgspec.msgpack.encode(self._state)

    def restore(self, blob: bytes) -> None:
        """Stand as `export` described it.

        Raises:
            ValueError: the bytes are something else.
        """
        self._state = msgspec.msgpack.decode(blob, type=_State)
