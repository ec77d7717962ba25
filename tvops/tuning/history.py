"""What tvops did to this host, and what of it still stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tvops.errors import JournalError
from tvops.tuning.attribution import Attribution, place_of
from tvops.tuning.file_writes import look
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory, boot_id, network_namespace
from tvops.tuning.model import Driver, Kind, Knob
from tvops.tuning.records import Entry, FileWrite, Run


class PastRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as `tvops tune history` lists it."""

    id: str
    kind: str = ""  # apply, persist, measure
    at: float = 0.0  # seconds since 1970
    user: str = ""
    command: str = ""
    profile: str = ""
    root: str = ""
    state: str = ""  # applied, failed, rolled back, incomplete, interrupted, running, damaged
    written: int = 0  # in force
    failed: int = 0
    undone: int = 0
    stuck: int = 0  # could not be undone
    reason: str = ""


def history(directory: StateDirectory) -> list[PastRun]:
    """Give all runs, oldest first; a journal that cannot be read is told as damaged."""
    running = bool(directory.holder())
    past = []
    for run_id in directory.ids():
        try:
            run = directory.peek(run_id)
        except JournalError as error:
            past.append(PastRun(id=run_id, state="damaged", reason=str(error)))
        else:
            if run:
                past.append(_told(run))
    under_way = [i for i, one in enumerate(past) if one.state == "interrupted"]
    if running and under_way:
        past[under_way[-1]] = msgspec.structs.replace(past[under_way[-1]], state="running")
    return past


def _told(run: Run) -> PastRun:
    begin = run.begin
    statuses = [entry.status for entry in run.entries.values()]
    return PastRun(
        id=begin.id, kind=begin.kind, at=begin.at, user=begin.user, command=begin.command, profile=begin.profile,
        root=begin.root, state=run.state, reason=run.end.reason if run.end else "",
        written=statuses.count("done") + statuses.count("open"), failed=statuses.count("failed"),
        undone=statuses.count("undone"), stuck=statuses.count("stuck"),
    )  # fmt: skip


Refusals = dict[tuple[str, str, str], str]
"""Knob, address and value -> why this kernel did not take it."""

_KERNEL_KINDS: frozenset[Kind] = frozenset({"sysctl", "file", "nic"})
"""What the kernel answers for, and so the same until it is booted again. A server refuses for a while only."""


def refusals(directory: StateDirectory, host: Host) -> Refusals:
    """Give what was tried since this boot and the kernel did not take, so that a plan need not promise it again.

    What a caller may not read, or what is damaged, is passed over: it is told where it matters.
    """
    namespace = network_namespace(host)
    found: Refusals = {}
    for run in _since_boot(directory, host):
        if run.begin.netns != namespace:
            continue
        for entry in run.entries.values():
            if isinstance(entry.write, FileWrite) or entry.write.item.kind not in _KERNEL_KINDS:
                continue
            item = entry.write.item
            place = item.knob, item.place.address, item.value
            if entry.status == "failed":
                found[place] = f"{entry.reason} (tried in run {run.id}; --retry tries again)"
            elif entry.status == "done":
                found.pop(place, None)
    return found


def _since_boot(directory: StateDirectory, host: Host) -> list[Run]:
    """Give the runs on this root since it was booted, oldest first; reads no journal behind the first older one.

    The boot decides and no clock: that of a machine that boots may be years behind.
    """
    now = boot_id(host)
    runs: list[Run] = []
    for run_id in reversed(_ids(directory)):
        try:
            run = directory.peek(run_id)
        except JournalError:
            continue
        if run is None or run.begin.root != str(host.root):
            continue
        if run.begin.boot != now:
            break
        runs.append(run)
    return runs[::-1]


def _ids(directory: StateDirectory) -> list[str]:
    try:
        return directory.ids()
    except JournalError:
        return []


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Something that tvops applied and that is no longer so."""

    name: str  # item, or path
    run: str  # the id of the run that wrote it
    ours: str  # of files: empty
    found: str | None  # None: it is gone
    reason: str = ""  # who may have changed it, or why it is gone


def drift(
    runs: Sequence[Run], catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], root: Path
) -> list[Drift]:
    """Compare what the runs of a root left in force, the last word on each place, with what is there now."""
    host = Host(root)
    runs = [run for run in runs if run.begin.root == str(host.root)]
    last: dict[tuple[str, str], tuple[Run, Entry]] = {}
    for run in runs:
        for entry in run.live:
            if entry.status == "done":
                last[place_of(entry.write)] = run, entry
    attribution = Attribution(host, runs)
    found = [_compare(run, entry, catalogue, drivers, host, attribution) for run, entry in last.values()]
    return [one for one in found if one]


def _compare(
    run: Run, entry: Entry, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], host: Host,
    attribution: Attribution,
) -> Drift | None:  # fmt: skip
    write = entry.write
    if isinstance(write, FileWrite):
        return _compare_file(run, write, host)
    knob, driver = catalogue.get(write.item.knob), drivers.get(write.item.kind)
    if knob is None or driver is None:
        return None  # this command does not reach it
    now = driver.read(knob, write.item.place)
    if now.status != "present":
        return Drift(name=write.name, run=run.id, ours=write.value, found=None, reason=now.reason)
    if now.value == write.value:
        return None
    reason = attribution.explain(run, write, knob, now.value)
    return Drift(name=write.name, run=run.id, ours=write.value, found=now.value, reason=reason)


def _compare_file(run: Run, write: FileWrite, host: Host) -> Drift | None:
    try:
        now = look(host, write.path)
    except OSError as error:
        return Drift(name=write.path, run=run.id, ours="", found=None, reason=error.strerror or str(error))
    if now is None:
        return Drift(name=write.path, run=run.id, ours="", found=None, reason="somebody removed it")
    if now.content == write.content:
        return None
    return Drift(name=write.path, run=run.id, ours="", found="", reason="somebody else changed it")
