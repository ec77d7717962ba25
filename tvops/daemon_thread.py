"""Calls that may take long or never end, in threads that nobody waits for at the end."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

Outcome = tuple[list[T], Exception | None]
"""What a call returned, or what it raised."""


def aside(name: str, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
    """Call away from the event loop, which waits at its end for the threads of its executor and not for this one.

    Args:
        name: of the thread.
        call: whose result, or exception, the future gets.
        arguments: of the call.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Outcome[T]) -> None:
        results, error = outcome
        if not future.done():
            future.set_exception(error) if error else future.set_result(results[0])

    def report(outcome: Outcome[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, outcome)

    _start(name, report, call, *arguments)
    return future


def within(seconds: float, name: str, call: Callable[..., T], *arguments: Any) -> T:
    """Call and give what that gives; signals are handled meanwhile, which they are not inside of a call in C.

    Args:
        seconds: that it may take.
        name: of the thread.
        call: whose result is given, or whose exception is raised.
        arguments: of the call.

    Raises:
        TimeoutError: it takes longer; it goes on, and nobody hears of it.
    """
    outcomes = queue.SimpleQueue[Outcome[T]]()
    _start(name, outcomes.put, call, *arguments)
    try:
        results, error = outcomes.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error:
        raise error
    return results[0]


def _start(name: str, report: Callable[[Outcome[T]], None], call: Callable[..., T], *arguments: Any) -> None:
    def run() -> None:
        results, failure = list[T](), None
        try:
            results.append(call(*arguments))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            failure = error
        report((results, failure))

    threading.Thread(target=run, name=name, daemon=True).start()
