"""What has to hold for a knob of the catalogue, so that everything that reads it may rely on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from tvops.tuning.dead_keys import dead_key
from tvops.tuning.model import Kind, Knob, Scope

UNITS = ("bytes", "kbytes", "pages", "ns", "us", "ms", "s", "percent")
PLACEHOLDERS = ("cpu", "irq", "nic", "queue", "block", "node")
ETHTOOL_GROUPS = ("coalesce", "ring", "feature", "channels", "pause")

SCOPES: Mapping[Kind, tuple[Scope, ...]] = {
    "sysctl": ("host", "netns"),
    "file": ("host", "nic", "netns"),
    "nic": ("nic",),
    "redis": ("server",),
    "boot": ("boot",),
    "held": ("process",),
    "process": ("process",),
    "socket": ("socket",),
}

_ID = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_SYSCTL = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")

Problems = Iterator[tuple[str, str]]  # (field, what is wrong with it)


def problems(knob: Knob) -> Problems:
    """Give field and problem of everything that is wrong with a knob by itself."""
    if not _ID.fullmatch(knob.id):
        yield "id", "may have a-z, 0-9, _, - and single dots only"
    if reason := dead_key(knob.id) or dead_key(knob.where):
        yield "where", f"is a dead key: {reason}"
    yield from _text_problems(knob)
    yield from _value_problems(knob)
    yield from _kernel_problems(knob)
    yield from _PLACE_CHECKS[knob.kind](knob)
    if knob.scope not in SCOPES[knob.kind]:
        yield "scope", f"is {knob.scope}; a {knob.kind} knob has {' or '.join(SCOPES[knob.kind])}"
    if knob.live and (knob.risk != "safe" or knob.reboot or knob.restart or knob.kind == "boot"):
        yield "live", "needs risk: safe, and neither reboot nor restart: it is flipped while the host works"
    if knob.capability and not re.fullmatch(r"CAP_[A-Z_]+", knob.capability):
        yield "capability", f"is {knob.capability!r}, not a name such as CAP_NET_ADMIN"
    if knob.capability and not knob.root:
        yield "capability", "contradicts root: false"


def _text_problems(knob: Knob) -> Problems:
    for field in ("where", "why", "truth", "hazard", "source", "restart"):
        text = getattr(knob, field)
        if text != text.strip() or "\n" in text:
            yield field, "has to be one line without blanks around it"
        if not text and field in ("where", "why", "source"):
            yield field, "is empty"
    if knob.why.endswith("."):
        yield "why", "is one clause: leave the full stop out"


def _value_problems(knob: Knob) -> Problems:
    number = knob.type in ("int", "ints")
    if knob.unit and not number:
        yield "unit", f"is for numbers, and the type is {knob.type}"
    if knob.unit and knob.unit not in UNITS:
        yield "unit", f"is {knob.unit!r}, not one of {', '.join(UNITS)}; leave it out for a plain number"
    if knob.unlimited is not None and not number:
        yield "unlimited", f"is for numbers, and the type is {knob.type}"
    if knob.choices and knob.type not in ("choice", "word"):
        yield "choices", f"are for the types choice and word, and the type is {knob.type}"
    if len(set(knob.choices)) < len(knob.choices):
        yield "choices", "name a value twice"


def _kernel_problems(knob: Knob) -> Problems:
    versions = []
    for field in ("kernel_min", "kernel_max"):
        text = getattr(knob, field)
        if text and not _VERSION.fullmatch(text):
            yield field, f"is {text!r}, not a version such as '6.11'"
        elif text:
            versions.append(tuple(map(int, text.split("."))))
    if len(versions) == 2 and versions[0] >= versions[1]:
        yield "kernel_max", "has to be later than kernel_min"


def _sysctl_problems(knob: Knob) -> Problems:
    if knob.where != knob.id:
        yield "where", "of a sysctl is its id: leave it out"
    if not _SYSCTL.fullmatch(knob.where):
        yield "where", "is not a sysctl key such as net.core.rmem_max"


def _file_problems(knob: Knob) -> Problems:
    if not knob.where.startswith(("/proc/", "/sys/", "/dev/")) or ".." in knob.where.split("/"):
        yield "where", f"is {knob.where!r}; a file of the kernel is below /proc, /sys or /dev"
    if knob.where.startswith("/proc/sys/"):
        yield "where", f"is a sysctl: kind sysctl, id {knob.where.removeprefix('/proc/sys/').replace('/', '.')}"
    for placeholder in re.findall(r"\{([^}]*)\}", knob.where):
        if placeholder not in PLACEHOLDERS:
            yield "where", f"has {{{placeholder}}}; there are {', '.join(f'{{{p}}}' for p in PLACEHOLDERS)}"


def _nic_problems(knob: Knob) -> Problems:
    group, _, name = knob.where.partition(" ")
    if group not in ETHTOOL_GROUPS or not name:
        yield "where", f"is {knob.where!r}, not a parameter of one of {', '.join(ETHTOOL_GROUPS)}"
    yield from _named_problems(knob)


def _named_problems(knob: Knob) -> Problems:
    name = knob.where.replace(" ", ".")
    if knob.id != f"{knob.kind}.{name}":
        yield "where", f"is {knob.where!r}, which belongs to the id {knob.kind}.{name}"


def _own_problems(knob: Knob) -> Problems:
    if not knob.id.startswith(f"{knob.kind}."):
        yield "id", f"has to begin with {knob.kind}."
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", knob.where):
        yield "where", f"is {knob.where!r}, not the name of an attribute or option, such as nice or TCP_NODELAY"


def _held_problems(knob: Knob) -> Problems:
    if not knob.where.startswith("/dev/"):
        yield "where", f"is {knob.where!r}; what is held open is a file below /dev"


def _boot_problems(knob: Knob) -> Problems:
    if not knob.id.startswith("boot."):
        yield "id", "has to begin with boot."
    if not knob.reboot:
        yield "reboot", "has to be true: the kernel reads its command line once"


_PLACE_CHECKS: Mapping[Kind, Callable[[Knob], Problems]] = {
    "sysctl": _sysctl_problems,
    "file": _file_problems,
    "nic": _nic_problems,
    "redis": _named_problems,
    "process": _own_problems,
    "socket": _own_problems,
    "held": _held_problems,
    "boot": _boot_problems,
}
