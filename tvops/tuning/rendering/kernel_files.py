"""Settings of the kernel as files that the boot reads: sysctl.d, tmpfiles.d, udev, modprobe.d, command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import groupby

from tvops.tuning.kinds.boot import FLAG
from tvops.tuning.model import Driver, Facts, Profile
from tvops.tuning.rendering.boot_loader import BootLoader, instructions
from tvops.tuning.rendering.settings import Setting, comment_lines, header
from tvops.tuning.values import written

SYSCTL = "/etc/sysctl.d/90-tvops.conf"
TMPFILES = "/etc/tmpfiles.d/tvops.conf"
UDEV = "/etc/udev/rules.d/90-tvops.rules"
MODPROBE = "/etc/modprobe.d/tvops.conf"
CMDLINE = "/etc/tvops/cmdline.conf"

ETHTOOL = "/usr/sbin/ethtool"

# Devices come when they like, so what is theirs is written by udev: attribute path -> the rule's conditions.
_DEVICES = (
    # An interface that udev renames comes as "add" under its first name and as "move" under the one that counts.
    (re.compile(r"/sys/class/net/([^/]+)/(.+)"), 'ACTION=="add|move", SUBSYSTEM=="net"'),
    (re.compile(r"/sys/block/([^/]+)/(.+)"), 'ACTION=="add|change", SUBSYSTEM=="block"'),
    (re.compile(r"/sys/devices/system/cpu/(cpu\d+)/(.+)"), 'ACTION=="add", SUBSYSTEM=="cpu"'),
)
_NIC_RULE = _DEVICES[0][1]
_QUEUE = re.compile(r"/sys/class/net/([^/]+)/queues/[rt]x-(\d+)/")
MAX_QUEUES = 65536
_MODULE = re.compile(r"/sys/module/([^/]+)/parameters/([^/]+)")
# What no file of the boot can write: interrupts have other numbers each time, control groups come and go.
_NO_FILE = re.compile(r"/proc/irq/\d+/|/sys/fs/cgroup/|/dev/")
_NO_ABI = "/sys/kernel/debug/"


def device_rule(address: str) -> tuple[str, str, str] | None:
    """Give the conditions, the device and the attribute of a path that belongs to a device."""
    for pattern, conditions in _DEVICES:
        if match := pattern.fullmatch(address):
            return conditions, match[1], match[2]
    return None


def without_a_file(settings: Iterable[Setting]) -> list[Setting]:
    """Give the settings that no file can express, so that `tvops tune` has to run at boot."""
    return [s for s in settings if _NO_FILE.match(s.place.address)]


def sysctl_file(profile: Profile, settings: Sequence[Setting]) -> str:
    """Render sysctl.d: read by systemd-sysctl and `sysctl --system`."""
    lines = header(profile, "settings of the kernel.")
    for setting in settings:
        lines += [*comment_lines(setting, profile.facts), f"{setting.knob.where} = {setting.value}", ""]
    return "\n".join(lines[:-1]) + "\n" if settings else ""


def tmpfiles_file(profile: Profile, settings: Sequence[Setting]) -> str:
    """Render tmpfiles.d: `w` writes into a file that exists."""
    chosen = [s for s in settings if not (device_rule(s.place.address) or _takes_no_line(s.place.address))]
    lines = header(profile, "files below /sys and /proc.")
    for _, same in groupby(chosen, lambda s: s.knob.id):
        group = list(same)
        lines += comment_lines(group[0], profile.facts)
        lines += [f"w {_word(s.place.address)} - - - - {_argument(written(s.knob, s.value))}" for s in group]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n" if chosen else ""


def _takes_no_line(address: str) -> bool:
    return bool(_NO_FILE.match(address) or _MODULE.fullmatch(address)) or address.startswith(_NO_ABI)


def _word(path: str) -> str:
    return _argument(path).replace(" ", "\\x20")


def _argument(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "%%")


def modprobe_file(profile: Profile, settings: Sequence[Setting]) -> str:
    """Render modprobe.d: parameters of modules; empty where the profile wants none."""
    lines = header(profile, "parameters of kernel modules.")
    chosen = [(s, m) for s in settings if (m := _MODULE.fullmatch(s.place.address))]
    for setting, match in chosen:
        lines += [*comment_lines(setting, profile.facts), f"options {match[1]} {match[2]}={setting.value}"]
    return "\n".join(lines) + "\n" if chosen else ""


def udev_file(
    profile: Profile, settings: Sequence[Setting], nic_settings: Sequence[Setting], nic: Driver | None
) -> str:
    """Render udev rules: attributes of interfaces, disks and CPUs, and calls of ethtool."""
    rules = [
        *_attribute_rules(_of_kept_queues(settings, nic_settings), profile.facts),
        *_ethtool_rules(nic_settings, nic, profile.facts),
    ]
    return "\n".join([*header(profile, "devices, as they come."), *rules[:-1]]) + "\n" if rules else ""


def _of_kept_queues(settings: Sequence[Setting], nic_settings: Sequence[Setting]) -> list[Setting]:
    """Leave out the queues that an interface no longer has once it has as many channels as the profile wants."""
    channels = {s.place.name: int(s.value) for s in nic_settings if s.knob.where == "channels combined"}
    kept = []
    for setting in settings:
        queue = _QUEUE.match(setting.place.address)
        if queue is None or int(queue[2]) < channels.get(queue[1], MAX_QUEUES):
            kept.append(setting)
    return kept


def _attribute_rules(settings: Sequence[Setting], facts: Facts) -> list[str]:
    lines: list[str] = []
    for _, same in groupby(settings, lambda s: s.knob.id):
        devices: dict[tuple[str, str, str], list[str]] = {}  # conditions, attribute, value -> devices
        group = list(same)
        for setting in group:
            if rule := device_rule(setting.place.address):
                conditions, device, attribute = rule
                devices.setdefault((conditions, attribute, written(setting.knob, setting.value)), []).append(
                    device
                )
        if devices:
            lines += comment_lines(group[0], facts)
            lines += [_rule(*key, _pattern_of(names, facts)) for key, names in devices.items()]
            lines.append("")
    return lines


def _rule(conditions: str, attribute: str, value: str, devices: str) -> str:
    return f'{conditions}, KERNEL=="{devices}", ATTR{{{attribute}}}="{_assigned(value)}"'


def _pattern_of(names: Sequence[str], facts: Facts) -> str:
    if len(names) > 1 and names == [f"cpu{cpu}" for cpu in facts.cpus]:
        return "cpu[0-9]*"
    return "|".join(map(_pattern, names))


def _ethtool_rules(settings: Sequence[Setting], nic: Driver | None, facts: Facts) -> list[str]:
    """Give one call of ethtool for each interface and kind of setting: some take the link down, once is enough."""
    calls: dict[tuple[str, ...], list[str]] = {}  # interface, ethtool, flag, interface -> names and values
    comments: dict[tuple[str, ...], list[str]] = {}
    for setting in settings if nic else ():
        assert nic is not None
        command = nic.shell(setting.knob, setting.place, setting.value)
        words = shlex.split(command) if command else []
        if words[:1] == ["ethtool"]:
            call = (setting.place.name, *words[:3])
            calls.setdefault(call, []).extend(words[3:])
            comments.setdefault(call, []).extend(comment_lines(setting, facts))
    lines: list[str] = []
    for call, arguments in calls.items():
        command = " ".join([ETHTOOL, *map(_assigned, call[2:]), *map(_assigned, arguments)])
        lines += [*comments[call], f'{_NIC_RULE}, KERNEL=="{_pattern(call[0])}", RUN+="{command}"', ""]
    return lines


def _pattern(name: str) -> str:
    """Give a device's name so that udev takes it for nothing but a name."""
    return re.sub(r'([*?\[\]|\\"])', "?", name)


def _assigned(value: str) -> str:
    """Give a value so that udev substitutes nothing in it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")


def cmdline_file(profile: Profile, settings: Sequence[Setting], loader: BootLoader) -> str:
    """Render the pieces of the kernel's command line, with what to do with them; empty where there are none."""
    chosen = [(setting, piece) for setting in settings if (piece := command_line_piece(setting))]
    if not chosen:
        return ""
    lines = header(profile, "pieces of the kernel's command line.")
    lines[-1:] = ["# Nothing reads this file by itself, and tvops never changes the boot loader. To use it:"]
    lines += [*(f"#   {step}" for step in instructions(loader, [piece for _, piece in chosen])), ""]
    for setting, piece in chosen:
        lines += [*comment_lines(setting, profile.facts), piece]
    return "\n".join(lines) + "\n"


def command_line_piece(setting: Setting) -> str:
    """Give a parameter as it stands on the command line; empty where it is not to stand there."""
    name, value = setting.knob.where, setting.value
    if not value:
        return ""
    if value == FLAG:
        return name
    if name == "isolcpus":
        value = f"managed_irq,domain,{value}"
    return f'{name}="{value}"' if " " in value else f"{name}={value}"
