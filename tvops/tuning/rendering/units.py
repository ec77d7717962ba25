"""Settings of processes as drop-ins of systemd units, and the unit that tunes at boot what no file can."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from tvops.cpu_lists import format_cpus, parse_cpus
from tvops.tuning.host import Host
from tvops.tuning.model import Profile
from tvops.tuning.rendering.settings import SLICE, Setting, header, one_line

UNITS = "/etc/systemd/system"
SERVICE = f"{UNITS}/tvops.service.d/10-tvops.conf"
BOOT_SERVICE = f"{UNITS}/tvops-tune.service"
SLICE_UNIT = f"{UNITS}/tvops.slice"

SERVER_UNITS = ("redis-server", "redis", "valkey-server", "valkey")
"""Units of the distributions' own servers, without `.service`."""

_UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_AFTER_SETTINGS = "After=systemd-sysctl.service systemd-tmpfiles-setup.service"


def server_units(host: Host) -> list[str]:
    """Give the units of Redis and Valkey that this host has, without those that are another's second name."""
    return [name for name in SERVER_UNITS if any(_is_unit(host, f"{f}/{name}.service") for f in _UNIT_FOLDERS)]


def _is_unit(host: Host, path: str) -> bool:
    try:
        alias = PurePosixPath(host.readlink(path)).name
    except OSError:
        return host.exists(path)
    return alias == PurePosixPath(path).name and host.exists(path)


def slice_file(profile: Profile, settings: Sequence[Setting]) -> str:
    """Render the slice of the stack; empty where the profile gives it no CPUs."""
    cpus = [s.value for s in settings if s.place.address == f"{SLICE}cpuset.cpus" and s.value]
    if not cpus:
        return ""
    lines = header(profile, "the CPUs that the stack's services may use.")
    return "\n".join([*lines, "[Slice]", f"AllowedCPUs={cpus[0].replace(',', ' ')}"]) + "\n"


def service_file(profile: Profile, settings: Sequence[Setting], companions: Sequence[str]) -> str:
    """Render the drop-in of tvops.service; empty where the profile wants nothing of its processes.

    It permits what `tvops serve --profile` then gives its processes one by one, so that serve needs no root. The
    most that any of them is to have is what the service may. ``companions`` are the paths of our other units.
    """
    directives = [*_limits(settings), *_inherited(settings), *_affinity(settings), *_slice(companions)]
    if not directives:
        return ""
    after = f"{_AFTER_SETTINGS}{' tvops-tune.service' if BOOT_SERVICE in companions else ''}"
    lines = header(profile, "what the stack's service may have.")
    lines += ["# `tvops serve --profile` gives it to its processes, to each its own: SCHED_FIFO too, which"]
    lines += ["# CPUSchedulingPolicy= would give to every thread and child.", "[Unit]", after, "", "[Service]"]
    return "\n".join([*lines, *directives]) + "\n"


def server_file(profile: Profile, settings: Sequence[Setting]) -> str:
    """Render the drop-in of a distribution's own server; empty where the profile wants nothing of it."""
    own = [s for s in settings if s.place.name in ("", "redis") and s.knob.where in ("nofile", "oom_score_adj")]
    directives = [*_limits(own), *_inherited(own)]
    lines = header(profile, "what a server's service may have.")
    return (
        "\n".join([*lines, "[Unit]", _AFTER_SETTINGS, "", "[Service]", *directives]) + "\n" if directives else ""
    )


def _numbers(settings: Sequence[Setting], name: str) -> list[int]:
    return [int(s.value) for s in settings if s.knob.where == name]


def _limits(settings: Sequence[Setting]) -> list[str]:
    lines = []
    if files := _numbers(settings, "nofile"):
        lines.append(f"LimitNOFILE={max(files)}")
    if any(s.value != "none" for s in settings if s.knob.where == "mlockall"):
        lines.append("LimitMEMLOCK=infinity")
    if (priority := max(_numbers(settings, "sched_fifo"), default=0)) > 0:
        lines.append(f"LimitRTPRIO={priority}")
    if (nice := min(_numbers(settings, "nice"), default=0)) < 0:
        lines.append(f"LimitNICE={nice}")
    return lines


def _inherited(settings: Sequence[Setting]) -> list[str]:
    """Give what every process of the service begins with: what is wanted of all of them, or protects them."""
    common = [s for s in settings if not s.place.name]
    lines = []
    if nice := _numbers(common, "nice"):
        lines.append(f"Nice={nice[0]}")
    if slack := _numbers(common, "timer_slack"):
        lines.append(f"TimerSlackNSec={slack[0]}")
    if scores := _numbers(settings, "oom_score_adj"):
        lines.append(f"OOMScoreAdjust={min(scores)}")
    return lines


def _affinity(settings: Sequence[Setting]) -> list[str]:
    cpus = [cpu for s in settings if s.knob.where == "affinity" for cpu in parse_cpus(s.value)]
    return [f"CPUAffinity={format_cpus(tuple(cpus)).replace(',', ' ')}"] if cpus else []


def _slice(companions: Sequence[str]) -> list[str]:
    return ["Slice=tvops.slice"] if SLICE_UNIT in companions else []


def boot_service_file(
    profile: Profile, settings: Sequence[Setting], command: Sequence[str], companions: Sequence[str]
) -> str:
    """Render the unit that runs ``command`` at boot for ``settings``; empty where there are none."""
    if not settings:
        return ""
    about = ", ".join(dict.fromkeys(s.knob.id for s in settings))
    lines = header(profile, "what no file can set at boot.")
    lines += [
        f"# That is here: {about}.",
        "[Unit]",
        f"Description=Tune this host for tvops ({one_line(profile.name)})",
        f"{_AFTER_SETTINGS} network.target irqbalance.service",
        "Before=tvops.service",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        *_slice(companions),
        f"ExecStart={' '.join(map(_word, command))}",
        "# 4: some settings are not supported here; 6: a restart or reboot is pending.",
        "SuccessExitStatus=4 6",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _word(text: str) -> str:
    """Give a word of a command line as systemd reads it."""
    text = text.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%$+=:,./-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
