"""Takes back the orders that a load left in a stack: each is cancelled until it is gone, or the time is over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Final

_SECONDS: Final = 60.0
_AWAY_SECONDS: Final = 2.0
"""How long there may be no connection before it is given up."""
_AT_ONCE: Final = 100
_AGAIN_SECONDS: Final = 0.5
"""Between a request and its repetition, and how long all wait where the stack has too many of them."""
_POLL_SECONDS: Final = 0.002
_NOT_OPEN: Final = 409
_NOT_FOUND: Final = 404


class TakingBack:
    """Cancels orders that rest, or may.

    An order is gone where the stack says that it was cancelled (2xx), that it is not open any more (409), or,
    twice, that it knows none (404). Once is not enough: the new order may come by another connection, and later.
    So the first such answer counts only where no request of the load is under way. After anything else (too many
    requests, a failure, a connection that ends) the order is cancelled again.
    """

    def __init__(
        self, orders: Sequence[str], send: Callable[[int, str], None], load_under_way: Callable[[], bool]
    ) -> None:
        """Prepare.

        Args:
            orders: client order ids.
            send: sends the request, by a number below 0 that comes back with its answer, to cancel an order.
            load_under_way: tells whether requests of the load have not been answered yet.
        """
        self.left = len(orders)
        """How many orders may still rest."""
        self._orders = orders
        self._send = send
        self._load_under_way = load_under_way
        self._due = deque(-1 - n for n in range(len(orders)))
        self._later: deque[tuple[float, int]] = deque()
        self._under_way: set[int] = set()
        self._not_found: set[int] = set()
        self._held_until = 0.0

    async def carry_out(self, connected: Callable[[], bool], end_by: Callable[[], float] = lambda: inf) -> int:
        """Cancel them all, as far as that goes in a minute or until ``end_by``, monotonic s; give what is left."""
        now = monotonic()
        end, away_by = now + _SECONDS, inf
        while self.left and now < min(end, end_by(), away_by):
            if connected():
                away_by = inf
                self._send_due(now)
            else:  # from this look on: where this process stood still, nobody knows how long it was away
                away_by = min(away_by, now + _AWAY_SECONDS)
            await asyncio.sleep(_POLL_SECONDS)
            now = monotonic()
        return self.left

    def _send_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            self._due.append(self._later.popleft()[1])
        while self._due and len(self._under_way) < _AT_ONCE and now >= self._held_until:
            number = self._due.popleft()
            self._under_way.add(number)
            self._send(number, self._orders[-1 - number])

    def answered(self, number: int, status: int) -> None:
        """Take the answer to a request."""
        if number not in self._under_way:
            return
        if status < 300 or status == _NOT_OPEN or (number in self._not_found and status == _NOT_FOUND):
            self._under_way.discard(number)
            self.left -= 1
            return
        if status != _NOT_FOUND:
            self._held_until = monotonic() + _AGAIN_SECONDS
        elif not self._load_under_way():
            self._not_found.add(number)
        self.lost(number)

    def lost(self, number: int) -> None:
        """Note that a request came to nothing."""
        self._under_way.discard(number)
        self._later.append((monotonic() + _AGAIN_SECONDS, number))
