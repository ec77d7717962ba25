"""The simulated market: a seeded crowd of agents that trade with each other and with users in our engine."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tvops.engine.bus.roles import Bus
from tvops.engine.feeds.agents import ACCOUNTS, MOST_COMMANDS, SLOTS, decide
from tvops.engine.feeds.value import MARKET, STEP_SECONDS
from tvops.engine.instruments import Instrument, InstrumentTable
from tvops.engine.market.own_orders import OwnOrders
from tvops.engine.market.quoting import QuotingService
from tvops.engine.records import COMMAND, EVENT
from tvops.settings import Settings

_UNIT = 0.5e-4  # of the price
_SAVE_SECONDS = 10.0
_MAX_SAVED_BYTES = 1 << 16
_MARGIN = 64  # units that stay free between the value and the ends of the price band

logger = logging.getLogger(__name__)


class Crowd:
    """All agents of the simulated market. Pure: the same events give the same commands for the same seed."""

    def __init__(self, table: InstrumentTable, seed: int) -> None:
        """Let all instruments of ``table`` be worth their `sim_price`; ``seed`` is any whole number from 0."""
        self.orders = OwnOrders(len(table), SLOTS, ACCOUNTS)
        self.markets = np.zeros(len(table), MARKET)
        for instrument in table.all:
            self._found(instrument)
        self._random = np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)
        self._serial = np.zeros(1, np.int64)
        self._last_held = np.zeros(len(table), np.int64)
        self._commands = np.zeros(len(table) * MOST_COMMANDS, COMMAND)

    def _found(self, instrument: Instrument) -> None:
        market = self.markets[instrument.index]
        market["start"] = instrument.sim_price
        market["unit"] = max(1.0, instrument.sim_price * _UNIT)
        market["lowest"], market["highest"] = instrument.price_low, instrument.price_high
        usual = instrument.max_notional / 1000 / instrument.sim_price
        market["lots"] = max(1.0, min(usual, instrument.max_quantity / 50))
        self.set_value(instrument.index, instrument.sim_price)

    def set_value(self, instrument: int, price: float) -> None:
        """Let an instrument be worth ``price`` ticks from now on, as far as the price band allows."""
        market = self.markets[instrument]
        margin = min(_MARGIN * market["unit"], (market["highest"] - market["lowest"]) / 4)
        price = min(max(price, market["lowest"] + margin), market["highest"] - margin)
        for field in ("value", "middle", "fast", "slow"):
            market[field] = price
        market["log_value"] = math.log(price / market["start"])

    def step(self) -> NDArray[Any]:
        """Let one step of `STEP_SECONDS` pass and give the commands of the agents.

        `orders` must have followed the answers to all commands of the step before. The COMMAND rows are a view
        that is valid until the next step; `seq` and `time` are 0.
        """
        count = decide(
            self._commands, self.orders.slots, self.markets, self.orders.tops, self.orders.positions,
            self._last_held, self.orders.halted, self._random, self._serial,
        )  # fmt: skip
        return self._commands[:count]


class SimService(QuotingService):
    """Lets the crowd trade in our engine. Values are kept in `sim.json`, so that prices go on where they were."""

    name = "sim"

    def __init__(self, settings: Settings, bus: Bus, table: InstrumentTable) -> None:
        self._table = table
        self._crowd = Crowd(table, settings.sim_seed)
        self._file = settings.data_path / "sim.json"
        self._saved = time.monotonic()
        super().__init__(bus, self._crowd.orders, STEP_SECONDS)

    async def start(self) -> None:
        """Go on at the saved values and begin to trade as soon as the engine answers."""
        for instrument, price in self._load().items():
            self._crowd.set_value(instrument, price)
        await super().start()

    async def stop(self) -> None:
        """Cancel what is in the book, as far as that works within a second, and save the values."""
        await super().stop()
        self._save()

    def compile(self) -> None:
        """Call every kernel once."""
        rehearsal = Crowd(self._table, 0)
        rehearsal.orders.follow(np.zeros(0, EVENT))
        rehearsal.step()

    async def _round(self) -> None:
        if time.monotonic() - self._saved >= _SAVE_SECONDS:
            self._save()
        await self._exchange(self._crowd.step())

    def _load(self) -> dict[int, int]:
        """Give instrument index -> ticks of the saved values that make sense."""
        try:
            with self._file.open("rb") as file:
                saved = msgspec.json.decode(file.read(_MAX_SAVED_BYTES), type=dict[str, str])
            known = {symbol: price for symbol, price in saved.items() if symbol in self._table.by_symbol}
            instruments = self._table.by_symbol
            return {instruments[s].index: instruments[s].price.parse(price) for s, price in known.items()}
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, ValueError) as error:
            logger.warning("%s cannot be used, the simulation starts at its first prices: %s", self._file, error)
            return {}

    def _save(self) -> None:
        self._saved = time.monotonic()
        values = self._crowd.markets["value"]
        saved = {i.symbol: i.price.format(round(float(values[i.index]))) for i in self._table.all}
        fresh = Path(f"{self._file}.new")
        try:
            fresh.write_bytes(msgspec.json.encode(saved))
            fresh.replace(self._file)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._file, error)
