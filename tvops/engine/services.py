"""What a service is, and how it tells its health."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

State = Literal["ok", "starting", "degraded", "failed"]


@dataclass(frozen=True, slots=True)
class Health:
    """State of a service and one plain sentence about it.

    A service that is "failed" does not go on by itself: its worker ends, and is restarted unless the failure is
    one that a restart cannot mend (`final`).
    """

    state: State
    detail: str = ""
    final: bool = False


class Service(Protocol):
    """A part of the stack that a worker process hosts. It knows the others only through the bus."""

    name: str

    async def start(self) -> None:
        """Acquire what the service needs and begin to serve; raise TvopsError where that fails."""

    async def stop(self) -> None:
        """Finish what was taken on, then let go of everything. Called once, also after a failed start."""

    def health(self) -> Health:
        """Tell the present state; never blocks."""

    def stats(self) -> dict[str, float | int | str]:
        """Give the figures that the status line and `/stats` show; never blocks."""


@runtime_checkable
class HasKernels(Protocol):
    """A service whose kernels are not all compiled when it has been made."""

    def compile(self) -> None:
        """Call every kernel once with data of no consequence, so that none compiles while the service runs."""


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended, whatever they raise.

    A single `cancel` is not enough: redis-py swallows one that arrives while it opens a connection.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=0.1)
        for task in ended:
            if not task.cancelled():
                task.exception()  # seen now: asyncio would complain about it later
