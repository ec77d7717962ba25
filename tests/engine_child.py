"""An engine under order load, in a process of its own: to be killed.

Reads settings and server URLs as one JSON line, then writes one line per acknowledged order: number, order id.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tvops.engine.bus.roles import Bus
from tvops.engine.instruments import load_instruments
from tvops.engine.ledger.idempotency import client_key
from tvops.engine.ledger.service import EngineService
from tvops.engine.records import COMMAND, Kind, OrderType, TimeInForce
from tvops.settings import Settings

ACCOUNT = 100
CLIENTS = 16
TABLE = load_instruments()


class Load(msgspec.Struct):
    """What the child is told."""

    settings: Settings
    urls: dict[str, str]
    first: int


def order(number: int) -> NDArray[Any]:
    """Give the NEW with this number: every second one trades with the one before."""
    row = np.zeros(1, COMMAND)
    row["kind"], row["order_type"], row["time_in_force"] = Kind.NEW, OrderType.LIMIT, TimeInForce.GTC
    row["account"], row["instrument"], row["quantity"] = ACCOUNT + number % 2, 0, 1 + number % 3
    row["side"], row["price"] = 1 + number % 2, TABLE[0].sim_price + number % 5
    row["client_id"] = f"order-{number}"
    row["key_high"], row["key_low"] = client_key(int(row["account"][0]), f"order-{number}")
    return row


async def place(engine: EngineService, number: int) -> int:
    """Give the order id that the engine answers the order with this number with."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    engine.sequencer.submit(order(number), lambda events: answer.set_result(int(events["order_id"][0])))
    return await answer


async def main() -> None:
    load = msgspec.json.decode(sys.stdin.readline(), type=Load)
    bus = await Bus.connect(load.settings, load.urls)
    engine = EngineService(load.settings, bus, TABLE)
    await engine.start()
    os.write(1, b"ready\n")
    number = load.first

    async def client() -> None:
        nonlocal number
        while True:
            mine, number = number, number + 1
            os.write(1, f"{mine} {await place(engine, mine)}\n".encode())

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main())
