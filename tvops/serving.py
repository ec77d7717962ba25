"""What `tvops serve` shows: addresses, readiness and the live status line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from typing import Any

from tvops.engine.supervisor import Supervisor
from tvops.json_text import json_line
from tvops.knob_looks import watch_knobs
from tvops.settings import Settings
from tvops.signals import heeded
from tvops.tuning.stack import StackProfile

LIVE_INTERVAL = 0.5
PLAIN_INTERVAL = 5.0
STARTING_INTERVAL = 1.0

logger = logging.getLogger(__name__)


def run_stack(settings: Settings, as_json: bool) -> int:
    """Run the stack until a signal ends it; give 0 after a clean stop."""
    return asyncio.run(_run(settings, as_json))


async def _run(settings: Settings, as_json: bool) -> int:
    profile = StackProfile.load(settings)
    supervisor = Supervisor(settings, profile.tuning)
    loop = asyncio.get_running_loop()
    for number in heeded():
        loop.add_signal_handler(number, supervisor.request_stop)
    shown = [
        asyncio.create_task(_show(supervisor, as_json)),
        asyncio.create_task(watch_knobs(supervisor, profile)),
    ]
    try:
        await supervisor.run()
    finally:
        for task in shown:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    if not as_json:
        killed = supervisor.killed
        _say(f"stopped; killed, not ended in time: {', '.join(killed)}" if killed else "stopped; nothing was lost")
    return 0


def _say(line: str) -> None:
    if sys.stdout is None:  # closed before we started
        return
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError as error:
        _fall_silent(error)


def _fall_silent(error: OSError) -> None:
    """Go on without status lines."""
    logger.warning("stdout cannot be written any more: %s", error.strerror)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - until the process ends


def addresses(settings: Settings) -> list[str]:
    """Give the lines that say where everything is."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    gateway, market = f"{host}:{settings.gateway_port}", f"{host}:{settings.market_port}"
    lines = []
    if "engine" in settings.services:
        lines += [
            f"chart and orders  http://{gateway}/",
            f"order API         http://{gateway}/docs  ws://{gateway}/ws",
        ]
    if "market" in settings.services:
        lines.append(f"market data       ws://{market}/ws  http://{market}/stats")
    return [*lines, f"data directory    {settings.data_path}"]


def figures(supervisor: Supervisor) -> dict[str, Any]:
    """Gather what the status line shows; a figure that no service reports is None."""
    stats: dict[str, dict[str, Any]] = {}
    services: dict[str, str] = {}
    for worker in supervisor.workers:
        if worker.status is not None:
            stats.update(worker.status.stats)
            services.update({name: state for name, (state, _) in worker.status.services.items()})

    def figure(service: str, key: str) -> Any:
        return stats.get(service, {}).get(key)

    sessions = [figure("gateway", "sessions"), figure("stream", "active_connections")]
    return {
        "time": time.time(),
        "ready": supervisor.ready,
        "feed": figure("price", "feed"),
        "feed_state": figure("price", "feed_state"),
        "ticks_per_s": figure("price", "ticks_per_s"),
        "orders_per_s": figure("gateway", "orders_per_s"),
        "sessions": sum(s for s in sessions if s is not None) if any(s is not None for s in sessions) else None,
        "order_p99_ms": figure("gateway", "reply_p99_ms"),
        "tick_p99_ms": figure("stream", "latency_p99_ms"),
        "memory_mb": round(supervisor.memory_bytes() / 1e6, 1),
        "restarts": sum(worker.past.restarts for worker in supervisor.workers),
        "services": services,
    }


def status_line(values: dict[str, Any]) -> str:
    """Write the figures as one line; what is not known shows as a dash."""

    def number(key: str, form: str) -> str:
        return "-" if values[key] is None else format(values[key], form)

    troubled = [f"{name} {state}" for name, state in values["services"].items() if state != "ok"]
    return " | ".join(
        [
            "ready" if values["ready"] else "starting",
            f"feed {values['feed'] or '-'} {values['feed_state'] or ''}".rstrip(),
            f"{number('ticks_per_s', ',.0f')} ticks/s",
            f"{number('orders_per_s', ',.0f')} orders/s",
            f"{number('sessions', 'd')} sessions",
            f"p99 order {number('order_p99_ms', '.2f')} ms, tick {number('tick_p99_ms', '.2f')} ms",
            f"{values['memory_mb']:.0f} MB",
            *([f"{values['restarts']} restarts"] if values["restarts"] else []),
            *troubled,
        ]
    )


async def _show(supervisor: Supervisor, as_json: bool) -> None:
    if not as_json:
        for line in addresses(supervisor.settings):
            _say(line)
    if sys.stdout is not None and sys.stdout.isatty() and not as_json:
        try:
            await _show_live(supervisor)
        except OSError as error:
            _fall_silent(error)
        return
    told_ready = False
    while True:
        values = figures(supervisor)
        if values["ready"] and not told_ready and not as_json:
            _say(f"ready after {time.monotonic() - supervisor.started:.1f} s")
        told_ready = told_ready or values["ready"]
        _say(json_line(values).decode() if as_json else status_line(values))
        await asyncio.sleep(PLAIN_INTERVAL if told_ready else STARTING_INTERVAL)


async def _show_live(supervisor: Supervisor) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    # no thread of its own that refreshes: one that cannot write ends with a traceback
    with Live(console=Console(), auto_refresh=False, transient=True) as live:
        while True:
            values = figures(supervisor)
            style = "green" if values["ready"] else "yellow"
            live.update(Text(status_line(values), style=style, no_wrap=True, overflow="ellipsis"), refresh=True)
            await asyncio.sleep(LIVE_INTERVAL)
