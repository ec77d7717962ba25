"""Calls that may take long or never end, away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def aside(name: str, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
    """Call in a thread that nobody waits for at the end, as the loop does for those of its executor.

    Args:
        name: of the thread.
        call: whose result, or exception, the future gets.
        arguments: of the call.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(results: list[T], error: Exception | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(results[0])

    def run() -> None:
        results, failure = [], None
        try:
            results.append(call(*arguments))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, results, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
