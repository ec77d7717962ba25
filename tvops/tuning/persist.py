"""A profile as files that make a host so at every boot: rendered, shown as a diff, written, and taken away again.

The files are a run of their own kind in the journal, so that an interruption, a rollback and the way back are
those of every other run. Nothing is reloaded here: `next_steps` says what is to be done.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tvops.errors import RefusedError, TvopsError
from tvops.profile_files import UNTOUCHED
from tvops.tuning.apply import apply_files
from tvops.tuning.file_writes import look
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory
from tvops.tuning.model import Driver, Item, Kind, Knob, Profile
from tvops.tuning.records import FileWrite, PlannedFile, Run
from tvops.tuning.rendering import kernel_files, units
from tvops.tuning.rendering.boot_loader import find_boot_loader
from tvops.tuning.rendering.redis_files import redis_files
from tvops.tuning.rendering.settings import MARK, gather_settings
from tvops.tuning.rollback import Restored, roll_back


class FileChange(msgspec.Struct, frozen=True):
    """What becomes of one file."""

    path: str
    state: Literal["same", "created", "changed", "removed", "conflict"]
    diff: str = ""  # unified
    reason: str = ""  # of a conflict


def render_files(
    profile: Profile, catalogue: Mapping[str, Knob], items: Sequence[Item], drivers: Mapping[Kind, Driver],
    host: Host, arguments: Sequence[str] = (), program: str = "",
) -> dict[str, str]:  # fmt: skip
    """Give the files that make a host as a profile wants it at every boot: absolute path -> content.

    There are none for the profile that promises to change nothing on the host.

    Args:
        profile: resolved for the host, whose CPUs and interfaces the files name.
        catalogue: id -> knob.
        items: the plan of the whole profile on the host, which knows the running values.
        drivers: the one of interfaces gives the calls of ethtool.
        host: for its boot loader and its servers' units.
        arguments: how `tvops tune` is called at boot; by default with the profile's name.
        program: absolute path of tvops; by default the one that runs.
    """
    if profile.name == UNTOUCHED:
        return {}
    settings = gather_settings(profile, items, catalogue)
    files = settings.get("file", [])
    processes = settings.get("process", [])
    rendered = {
        kernel_files.SYSCTL: kernel_files.sysctl_file(profile, settings.get("sysctl", [])),
        kernel_files.TMPFILES: kernel_files.tmpfiles_file(profile, files),
        kernel_files.UDEV: kernel_files.udev_file(profile, files, settings.get("nic", []), drivers.get("nic")),
        kernel_files.MODPROBE: kernel_files.modprobe_file(profile, files),
        kernel_files.CMDLINE: kernel_files.cmdline_file(profile, settings.get("boot", []), find_boot_loader(host)),
        units.SLICE_UNIT: units.slice_file(profile, files),
    }
    rendered = {path: text for path, text in rendered.items() if text}
    command = [program or _program(), "tune", *(arguments or ("--profile", profile.name)), "--yes"]
    without = kernel_files.without_a_file(files)
    rendered[units.BOOT_SERVICE] = units.boot_service_file(profile, without, command, [*rendered])
    companions = [path for path, text in rendered.items() if text]
    rendered[units.SERVICE] = units.service_file(profile, processes, companions)
    for name in units.server_units(host):
        rendered[f"{units.UNITS}/{name}.service.d/10-tvops.conf"] = units.server_file(profile, processes)
    rendered |= redis_files(profile, settings.get("redis", []))
    return {path: text for path, text in rendered.items() if text}


def _program() -> str:
    beside = Path(sys.executable).with_name("tvops")
    return str(beside) if beside.exists() else "/usr/bin/tvops"


def plan_files(files: Mapping[str, str], host: Host, ours: Mapping[str, bytes]) -> list[FileChange]:
    """Tell what writing ``files`` would change; all `same`: the host has them as the profile wants them.

    Args:
        files: path -> content, as rendered.
        host: where they are to be.
        ours: path -> content of the files that are persisted already (`persisted`).
    """
    changes = [_change(path, text, host, ours.get(path)) for path, text in files.items()]
    return changes + [_change(path, None, host, content) for path, content in ours.items() if path not in files]


def _change(path: str, text: str | None, host: Host, ours: bytes | None) -> FileChange:
    try:
        found = look(host, path)
    except OSError as error:
        return FileChange(path, "conflict", reason=f"cannot be read ({(error.strerror or str(error)).lower()})")
    now = found.content if found else None
    wanted = None if text is None else text.encode()
    if now == wanted:
        return FileChange(path, "same")
    diff = _diff(path, now, wanted)
    if now is None:
        return FileChange(path, "created", diff)
    if ours is not None and now != ours:
        return FileChange(path, "conflict", diff, "was changed since tvops wrote it")
    if ours is None and not now.startswith(MARK.encode()):
        return FileChange(path, "conflict", diff, "is not a file of tvops")
    return FileChange(path, "changed" if text is not None else "removed", diff)


def _diff(path: str, now: bytes | None, wanted: bytes | None) -> str:
    before, after = ((data or b"").decode(errors="replace").splitlines() for data in (now, wanted))
    names = (path if now is not None else "/dev/null", path if wanted is not None else "/dev/null")
    return "\n".join(difflib.unified_diff(before, after, *names, lineterm=""))


def persist_runs(state: StateDirectory, host: Host) -> list[Run]:
    """Give the runs whose files a host may still have, oldest first; raise JournalError."""
    runs = [run for run in state.runs() if run.begin.kind == "persist" and run.begin.root == str(host.root)]
    return [run for run in runs if run.live]


def persisted(state: StateDirectory, host: Host) -> dict[str, bytes]:
    """Give what tvops has written and not taken away again: path -> content; raise JournalError."""
    entries = [entry for run in persist_runs(state, host) for entry in run.live]
    return {e.write.path: e.write.content for e in entries if isinstance(e.write, FileWrite)}


def persist(
    state: StateDirectory,
    host: Host,
    profile: Profile,
    files: Mapping[str, str],
    command: str,
    force: bool = False,
) -> list[FileChange]:
    """Write files; give what that changed. Needs the lock of ``state``.

    Files of an earlier run that the profile has no use for are put back to what they were.

    Args:
        state: where the journal is.
        host: where the files go.
        profile: what they are rendered from.
        files: path -> content.
        command: what the journal tells of the call.
        force: replace files that are not ours, or that somebody changed; `unpersist` puts them back.

    Raises:
        RefusedError: a file at one of the paths is not ours, or was changed; nothing was written.
        TvopsError: a file could not be written; what was written has been undone.
        JournalError: as for every run.
    """
    changes = plan_files(files, host, persisted(state, host))
    conflict = next((change for change in changes if change.state == "conflict"), None)
    if conflict and not force:
        raise RefusedError(f"{conflict.path} {conflict.reason}: move it away, or replace it with --force")
    if all(change.state == "same" for change in changes):
        return changes
    if set(persisted(state, host)) - set(files):
        stuck = next((one for one in unpersist(state, host, force) if one.incomplete), None)
        if stuck:
            raise TvopsError(f"{stuck.name}: {stuck.reason}")
    if not files:
        return changes
    planned = [PlannedFile(path=path, content=text) for path, text in files.items()]
    with state.new_run("persist", command=command, root=host.root, profile=profile.name, files=planned) as run:
        apply_files(planned, run)
    return changes


def unpersist(state: StateDirectory, host: Host, force: bool = False) -> list[Restored]:
    """Put back what was there before anything was persisted, newest first; nothing where nothing is persisted.

    A file that somebody changed since is left alone and told, unless with ``force``. Needs the lock of ``state``.
    Raises JournalError.
    """
    restored: list[Restored] = []
    for found in reversed(persist_runs(state, host)):
        with state.open_run(found.id) as run:
            restored += roll_back(run, {}, {}, force, reason="tvops tune unpersist")
    return restored


def next_steps(paths: Sequence[str]) -> list[str]:
    """Give the commands that make the kernel and systemd read these files now, and what is left to the owner."""
    steps = {
        kernel_files.SYSCTL: "sysctl --system",
        kernel_files.TMPFILES: f"systemd-tmpfiles --create {kernel_files.TMPFILES}",
        # No trigger: it would play every rule of the host again, and may rename interfaces that are in use.
        kernel_files.UDEV: "udevadm control --reload",
        units.BOOT_SERVICE: "systemctl enable tvops-tune.service",
        kernel_files.CMDLINE: f"follow {kernel_files.CMDLINE} to change the kernel's command line, then reboot",
    }
    found = [step for path, step in steps.items() if path in paths]
    if any(path.startswith(units.UNITS) for path in paths):
        found.insert(0, "systemctl daemon-reload")
    includes = [path for path in paths if path.startswith("/etc/tvops/redis-")]
    return found + [f"put at the end of that server's configuration: include {path}" for path in includes]
