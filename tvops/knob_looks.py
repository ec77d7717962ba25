"""`tvops serve` looks now and then whether its profile is still in force, and writes down what it finds.

In a thread, and never on the event loop; a look that takes long makes the next one come later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence

from tvops.daemon_thread import aside
from tvops.engine.knob_table import FILE_NAME, Knob, KnobTable, write_table
from tvops.engine.stack_tuning import Effect, settled
from tvops.engine.supervisor import Supervisor
from tvops.engine.tuning_report import started
from tvops.tuning.stack import StackProfile, summary

READY_INTERVAL = 0.2
LONG_SECONDS = 0.05
"""CPU time of a look above which looks come more rarely, in proportion: 0.2 % of a core at 30 s."""

HOST_KINDS = ("sysctl", "file", "nic")

logger = logging.getLogger(__name__)


async def watch_knobs(supervisor: Supervisor, profile: StackProfile) -> None:
    """Log once what is in force and what is not; then look again for as long as the stack runs.

    A look that fails is logged once, and leaves the table of the one before it, whose age shows.
    """
    while not supervisor.ready:  # noqa: ASYNC110 (a figure, not an event)
        await asyncio.sleep(READY_INTERVAL)
    if line := summary(profile.name, *settled(supervisor.effects()), profile.ids):
        logger.info("%s", line)
    every, told, known = supervisor.settings.knobs_seconds, False, ""
    look = _timed(profile.watch().look)
    try:
        while True:
            try:
                knobs, seconds = await aside("knobs", look, supervisor.effects())
                every = supervisor.settings.knobs_seconds * max(1.0, seconds / LONG_SECONDS)
                trouble = _write(supervisor, every, knobs)
            except Exception as error:  # noqa: BLE001 - a look must never end the stack
                trouble = f"host: could not be compared with profile {profile.name}: {error!r}"
            else:
                if not told:
                    _tell(profile.name, knobs)
                told = True
            if trouble and trouble != known:
                logger.warning("%s", trouble)
            known = trouble
            await asyncio.sleep(every)
    finally:
        with contextlib.suppress(OSError):
            (supervisor.settings.data_path / FILE_NAME).unlink()


def _timed(look: Callable[[Sequence[Effect]], tuple[Knob, ...]]) -> Callable[..., tuple[tuple[Knob, ...], float]]:
    """Have a look give the CPU time that it took as well, in s."""

    def timed(effects: Sequence[Effect]) -> tuple[tuple[Knob, ...], float]:
        begun = time.thread_time()
        return look(effects), time.thread_time() - begun

    return timed


def _write(supervisor: Supervisor, every: float, knobs: tuple[Knob, ...]) -> str:
    """Write the table for the telemetry; give what hindered that, if anything did."""
    pid, folder = os.getpid(), supervisor.settings.data_path
    try:
        write_table(folder, KnobTable(pid=pid, started=started(pid), every=every, knobs=knobs))
    except OSError as error:
        return f"{folder / FILE_NAME} could not be written, so the knobs shown stay old: {error.strerror}"
    return ""


def _tell(profile: str, knobs: Sequence[Knob]) -> None:
    """Log what of the host is otherwise than the profile wants, and can be changed."""
    differing = (knob for knob in knobs if knob.kind in HOST_KINDS and knob.state in ("differs", "drifted"))
    if pending := sum(max(1, len(knob.places)) for knob in differing):
        logger.info(
            "host: %d settings differ from profile %s: sudo tvops tune --profile %s", pending, profile, profile
        )
