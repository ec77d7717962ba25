"""What to do about a run that was killed: finish it, or undo it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from tvops.errors import RefusedError
from tvops.tuning.apply import Progress, apply_files, apply_plan
from tvops.tuning.host import Host
from tvops.tuning.journal import Journal, boot_id, network_namespace
from tvops.tuning.model import Driver, Item, Kind, Knob
from tvops.tuning.records import Run
from tvops.tuning.rollback import Restored, roll_back


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an interrupted run."""

    items: list[Item] = []  # of a run that was finished
    restored: list[Restored] = []  # of one that was undone


def recover(
    run: Journal, how: Literal["finish", "undo"], catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver],
    progress: Progress | None = None,
) -> Recovered:  # fmt: skip
    """Finish an interrupted run as it was planned, or undo it. Its drivers act on the root of the run.

    Raises:
        RefusedError: it cannot be finished (`unfinishable`), and why.
        StoppedError, JournalError: as `apply_plan`.
    """
    if how == "undo":
        return Recovered(restored=roll_back(run, catalogue, drivers, reason="it was interrupted"))
    if reason := unfinishable(run.run, catalogue):
        raise RefusedError(f"run {run.run.id} cannot be finished: {reason}; undo it")
    if run.run.begin.kind == "persist":
        apply_files(run.run.begin.files, run)
        return Recovered()
    items = run.run.begin.items
    apply_plan(items, catalogue, drivers, run, progress)
    return Recovered(items=items)


def unfinishable(run: Run, catalogue: Mapping[str, Knob]) -> str:
    """Tell why an interrupted run can only be undone, in one clause; empty where it can be finished."""
    begin = run.begin
    host = Host(Path(begin.root))
    if run.rolling_back:
        return "it was being undone"
    if begin.kind == "measure":
        return "a measurement cannot be taken up again"
    if begin.boot and boot_id(host) != begin.boot:
        return "the host was rebooted since"
    if begin.netns and network_namespace(host) != begin.netns:
        return "it began in another network namespace"
    unknown = [item.knob for item in begin.items if item.knob not in catalogue]
    return f"the catalogue has no {unknown[0]} any more" if unknown else ""
