"""The vocabulary of tuning: what a knob is, what a host shows of it, and what a plan says about it.

    catalogue ─► Knob ┐
    profile ─► Wanted ├─► plan (pure) ─► Item ─► apply: journal, write, read back ─► Item with its outcome
    host ─► Place, State ┘

A value is text in its canonical form (see `values.py`) wherever it stands in one of these records.
"""

from __future__ import annotations

import enum
from typing import Literal, Protocol

import msgspec

Kind = Literal["sysctl", "file", "nic", "redis", "boot", "held", "process", "socket"]
"""Where a knob lives. `held`, `process` and `socket` belong to the process that has them: `tvops serve`."""

ValueType = Literal["int", "ints", "choice", "word", "text", "cpulist", "cpumask"]
"""How the values of a knob are read and compared (`values.py`)."""

Risk = Literal["safe", "disruptive", "dangerous"]
RISKS: tuple[Risk, ...] = ("safe", "disruptive", "dangerous")
"""From least to most: safe; may disturb what runs now (a link flap, a stall); may lose data or the machine."""

Scope = Literal["host", "netns", "nic", "server", "process", "socket", "boot"]

SERVE_KINDS: frozenset[Kind] = frozenset({"held", "process", "socket"})


class ExitCode(enum.IntEnum):
    """What `tvops tune` and its subcommands exit with."""

    MET = 0  # the host is as the profile wants it
    FAILED = 1  # a required knob failed and everything was rolled back
    USAGE = 2  # an argument, a profile or a file is wrong
    PENDING = 3  # changes are pending, or something has drifted
    UNSUPPORTED = 4  # applied, but some best-effort knobs are not supported here
    PRIVILEGE = 5  # some knobs need a privilege that the caller lacks
    REBOOT = 6  # applied, but a reboot or a restart is pending
    INCOMPLETE = 7  # a rollback could not restore everything


class Knob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One setting, as the catalogue in `kernel-tuning/` describes it."""

    id: str  # what profiles and people call it; a sysctl's id is its key
    kind: Kind
    where: str  # sysctl key, path (with {cpu}, {irq}, {nic}, {queue}, {block}), CONFIG key, option, parameter
    type: ValueType
    unit: str = ""  # bytes, kbytes, pages, ns, us, ms, s, percent, …; empty: a plain number or word
    choices: tuple[str, ...] = ()  # of a choice or word: the values that it can take
    unlimited: int | None = None  # the number that stands for "no limit", and so is more than any other
    scope: Scope = "host"
    root: bool = True  # whether writing needs root (or the capability)
    capability: str = ""  # the capability that root means here, e.g. CAP_SYS_RESOURCE
    reboot: bool = False  # takes effect at the next boot only
    restart: str = ""  # what has to be restarted for it to take effect
    kernel_min: str = ""  # first kernel that has it, e.g. "6.11"
    kernel_max: str = ""  # first kernel that no longer has it
    risk: Risk = "safe"
    live: bool = False  # may be flipped back and forth on a running host, to measure what it does
    coupled: tuple[str, ...] = ()  # ids of knobs that change with it, or have to fit to it
    hazard: str = ""  # what is treacherous about reading it back or restoring it
    why: str  # what it is good for, in one clause
    truth: str = ""  # what it costs, and what is wrongly said of it
    source: str  # kernel document, manual page, paper, or "measured"


class Place(msgspec.Struct, frozen=True):
    """One concrete place of a knob: an absolute path, an interface, a server, a process."""

    address: str
    name: str = ""  # "cpu3", "irq24", "eth0", "ledger"; empty where a knob has one place only


class State(msgspec.Struct, frozen=True):
    """What a place shows now."""

    status: Literal["present", "absent", "denied"]  # denied: it is there, but must not be read
    value: str = ""  # canonical
    raw: str = ""  # as read, to the byte
    writable: bool = True  # as far as can be told without writing, for this caller
    needs: str = ""  # the privilege that would make it writable: "root", "CAP_NET_ADMIN"
    restart: str = ""  # what has to be restarted for another value, as the driver found out
    reason: str = ""  # why absent, denied or not writable
    coupled: dict[str, str] = {}  # what the knobs that change with this one showed: id -> canonical value


ItemState = Literal[
    "met",  # as wanted
    "pending",  # differs and can be written now
    "privilege",  # differs, and the caller may not write it
    "restart",  # differs, and takes a restart of what is named in the reason
    "reboot",  # differs, and takes a reboot
    "serve",  # belongs to the running `tvops serve`, which does not have it in force
    "unsupported",  # absent or unchangeable on this host
    "refused",  # not safe, and the reason
    "skipped",  # a guard, --only, --skip or --risk-max leaves it out
]

Outcome = Literal["", "written", "failed", "undone", "stuck"]
"""What became of a pending item: written and read back; not; undone again; written and could not be undone."""


class Item(msgspec.Struct, kw_only=True):
    """One line of a plan: one place of one knob."""

    knob: str
    kind: Kind
    place: Place
    scope: Scope
    risk: Risk
    required: bool
    current: str | None  # canonical; None: not known
    wanted: str  # as the profile says it: ">=16mb", "$irq"
    value: str  # what should stand there, canonical; what would be written
    state: ItemState
    reason: str = ""
    why: str = ""
    origin: str = ""  # "prod.yaml:31": where the wish comes from
    before: str | None = None  # what stood there before it was written
    outcome: Outcome = ""

    @property
    def id(self) -> str:
        """The knob, and the place where it has several: `cpu.governor@cpu3`."""
        return f"{self.knob}@{self.place.name}" if self.place.name else self.knob


class NotWrittenError(Exception):
    """A place took no new value; `str()` is the reason, in one clause without the place."""


class Driver(Protocol):
    """Reads and writes all knobs of one kind. Values in and out are canonical."""

    def places(self, knob: Knob) -> list[Place]:
        """Give where the knob is on this host; nothing where it is absent. Never raises."""
        ...

    def read(self, knob: Knob, place: Place) -> State:
        """Tell what stands there now. Never raises: what cannot be read is `absent` or `denied`."""
        ...

    def write(self, knob: Knob, place: Place, value: str) -> None:
        """Write a canonical value; raise NotWrittenError. Does not read back."""
        ...

    def restore(self, knob: Knob, place: Place, before: State) -> None:
        """Put back what `before` showed, coupled keys included; raise NotWrittenError."""
        ...

    def objection(self, knob: Knob, place: Place, value: str) -> str:
        """Tell why writing ``value`` would do harm here, in one clause; empty where it would not."""
        ...

    def shell(self, knob: Knob, place: Place, value: str) -> str | None:
        """Give the shell command that would write it; None where no plain command can."""
        ...


class Core(msgspec.Struct, frozen=True):
    """A physical core with those of its CPUs that can be used."""

    cpus: tuple[int, ...]
    node: int = 0  # NUMA node
    isolated: bool = False  # kept free of other work by isolcpus or an isolated cpuset


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """The cores that this process may use, in the order of their CPUs."""

    cores: tuple[Core, ...]
    nic_node: int | None = None  # NUMA node of the network interface; None: not known, or there is one node only


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What guards and values of a profile may depend on."""

    kernel: tuple[int, int, int]
    release: str  # uname -r
    virtual: str = ""  # hypervisor ("kvm", "firecracker", "xen", …); empty: bare metal
    container: str = ""  # "docker", "lxc", …; empty: none
    memory_bytes: int  # of the host, or of the cgroup where that is less
    page_size: int = 4096
    cpus: tuple[int, ...] = (0,)  # online, and in the cpuset of this process
    topology: Topology | None = None  # None: every CPU is a core of its own
    numa_nodes: int = 1
    smt: bool = False  # whether two online CPUs share a core
    nics: dict[str, str] = {}  # physical and virtio interfaces: name -> driver
    privileged: bool = False  # whether the caller may write host-wide settings
    roles: dict[str, tuple[int, ...]] = {}  # housekeeping, irq, engine, market, redis -> CPUs


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a resolved profile wants of one knob, at the places that its selector names."""

    knob: str
    selector: str = (
        ""  # behind the @: a place's name (fnmatch pattern), or $role for the CPUs of a role; empty: all
    )
    value: object  # as written; `values.parse_wanted` reads it
    required: bool = False  # a failure undoes the whole run
    skip: str = ""  # why a guard leaves it out on this host; empty: it counts
    why: str = ""  # instead of the catalogue's reason
    origin: str = ""  # "prod.yaml:31"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A profile with everything that it extends and that overlays it, resolved for one host."""

    name: str
    description: str
    settings: dict[str, object]  # of `tvops serve`
    wishes: tuple[Wish, ...]  # one per knob and selector: the last word of the chain
    facts: Facts  # with the CPU roles of this profile
