"""Symptoms: what the kernel counts when packets, connections or CPU time are being lost.

Counters are read twice with a pause between, because most of them only ever grow: what grew in the pause is
happening now, what stands since boot is a note.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

import msgspec

from tvops.tuning.doctor.finding import Finding
from tvops.tuning.host import Host

STEAL_PERCENT = 1.0
PRESSURE_PERCENT = 5.0
CONNTRACK_SHARE = 0.8


class Counter(msgspec.Struct, frozen=True):
    """A counter that ought to stand still."""

    name: str
    what: str
    why: str
    fix: str


COUNTERS = (
    Counter(
        "udp.rcvbuf_errors", "datagrams dropped because a receive buffer was full",
        "a feed loses packets and has to resynchronise", "tvops tune --profile prod --only net.core.rmem_max",
    ),
    Counter(
        "tcp.listen_overflows", "connections dropped because a listen backlog was full",
        "clients wait a second or more for their retry", "tvops tune --profile prod --only net.core.somaxconn",
    ),
    Counter(
        "net.softnet_dropped", "packets dropped because a CPU's backlog queue was full",
        "lost packets are sent again 200 ms later", "tvops tune --profile prod --only net.core.netdev_max_backlog",
    ),
    Counter(
        "net.softnet_squeezed", "times that a CPU had more packets than its softirq budget",
        "packets wait for the next softirq round", "tvops tune --profile prod --only 'net.core.netdev_budget*'",
    ),
    Counter(
        "cgroup.throttled", "times that the cgroup's CPU quota stopped its processes",
        "every process of the cgroup stands still for up to 100 ms",
        "raise or remove the CPU limit of the container or unit",
    ),
    Counter(
        "vm.allocstall", "times that an allocation had to free memory first",
        "the process stalls for milliseconds", "tvops tune --profile prod --only vm.watermark_scale_factor",
    ),
    Counter(
        "vm.swapped_in", "pages read back from swap", "every such page costs a disk access",
        "tvops tune --profile prod --only vm.swappiness",
    ),
)  # fmt: skip


def read_counters(host: Host) -> dict[str, int]:
    """Read every counter of `COUNTERS` that this host has, and CPU time as `cpu.total` and `cpu.steal` (ticks)."""
    values: dict[str, int] = {}
    udp, tcp = _paired(host, "/proc/net/snmp", "Udp"), _paired(host, "/proc/net/netstat", "TcpExt")
    for name, table, key in (
        ("udp.rcvbuf_errors", udp, "RcvbufErrors"),
        ("tcp.listen_overflows", tcp, "ListenOverflows"),
        ("cgroup.throttled", _keyed(host, "/sys/fs/cgroup/cpu.stat"), "nr_throttled"),
        ("cgroup.throttled", _keyed(host, "/sys/fs/cgroup/cpu/cpu.stat"), "nr_throttled"),
        ("vm.swapped_in", _keyed(host, "/proc/vmstat"), "pswpin"),
    ):
        if key in table:
            values[name] = table[key]
    stalls = [count for key, count in _keyed(host, "/proc/vmstat").items() if key.startswith("allocstall")]
    if stalls:
        values["vm.allocstall"] = sum(stalls)
    rows = [line.split() for line in _lines(host, "/proc/net/softnet_stat")]
    if rows:
        values["net.softnet_dropped"] = sum(int(row[1], 16) for row in rows)
        values["net.softnet_squeezed"] = sum(int(row[2], 16) for row in rows)
    for line in _lines(host, "/proc/stat")[:1]:
        ticks = [int(word) for word in line.split()[1:9]]
        values["cpu.total"], values["cpu.steal"] = sum(ticks), ticks[7] if len(ticks) > 7 else 0
    return values


def symptoms(host: Host, seconds: float) -> list[Finding]:
    """Watch the counters for ``seconds`` and look at gauges; takes that long."""
    before = read_counters(host)
    time.sleep(seconds)
    after = read_counters(host)
    return [*judge_counters(before, after, seconds), *_steal(before, after), *pressure(host), *table_full(host)]


def judge_counters(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> list[Finding]:
    """Say which counters grew within ``seconds``, and which have counted something since boot."""
    findings = []
    for counter in COUNTERS:
        total = after.get(counter.name, 0)
        grown = total - before.get(counter.name, total)
        if grown > 0:
            what = f"{grown} {counter.what} within {seconds:g} s ({total} since boot)"
            findings.append(
                Finding(severity="warning", about=counter.name, what=what, why=counter.why, fix=counter.fix)
            )
        elif total > 0:
            what = f"{total} {counter.what} since boot, none now"
            findings.append(
                Finding(severity="note", about=counter.name, what=what, why=counter.why, fix=counter.fix)
            )
    return findings


def _steal(before: Mapping[str, int], after: Mapping[str, int]) -> list[Finding]:
    ticks = after.get("cpu.total", 0) - before.get("cpu.total", 0)
    if ticks <= 0:
        return []
    share = 100 * (after["cpu.steal"] - before["cpu.steal"]) / ticks
    if share < STEAL_PERCENT:
        return []
    return [
        Finding(
            severity="warning",
            about="cpu.steal",
            what=f"the hypervisor takes {share:.1f} % of the CPU time away",
            why="a stolen slice stops everything for milliseconds",
            fix="ask the provider for dedicated (pinned) CPUs",
        )
    ]


def pressure(host: Host) -> list[Finding]:
    """Look at how long tasks waited for memory, disks and CPUs (Documentation/accounting/psi.rst)."""
    findings = []
    for resource in ("memory", "io", "cpu"):
        for line in _lines(host, f"/proc/pressure/{resource}"):
            kind, *fields = line.split()
            values = dict(field.split("=", 1) for field in fields if "=" in field)
            stalled = float(values.get("avg10", 0))
            # `some` of the CPU is normal work; the others mean that something waits that should not.
            if kind != "some" or stalled < PRESSURE_PERCENT * (4 if resource == "cpu" else 1):
                continue
            findings.append(
                Finding(
                    severity="warning",
                    about=f"pressure.{resource}",
                    what=f"tasks waited for {resource} {stalled:.0f} % of the last 10 s",
                    why="what waits here misses its latency target",
                    fix="move other work away from this host",
                )
            )
    return findings


def table_full(host: Host) -> list[Finding]:
    """Look at how full the connection tracking table is."""
    used = _number(host, "/proc/sys/net/netfilter/nf_conntrack_count")
    most = _number(host, "/proc/sys/net/netfilter/nf_conntrack_max")
    if used is None or not most or used < CONNTRACK_SHARE * most:
        return []
    return [
        Finding(
            severity="critical",
            about="conntrack.full",
            what=f"the connection tracking table holds {used} of {most} entries",
            why="when it is full, packets of new connections are dropped",
            fix="tvops tune --profile prod --only net.netfilter.nf_conntrack_max",
        )
    ]


def _lines(host: Host, path: str) -> list[str]:
    try:
        return host.read_text(path).splitlines()
    except OSError:
        return []


def _number(host: Host, path: str) -> int | None:
    text = "".join(_lines(host, path)[:1]).strip()
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def _keyed(host: Host, path: str) -> dict[str, int]:
    rows = (line.split() for line in _lines(host, path))
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and re.fullmatch(r"[0-9]{1,20}", row[1])}


def _paired(host: Host, path: str, protocol: str) -> dict[str, int]:
    """Read a table in which a line of names stands above a line of values (proc_pid_net(5), snmp)."""
    rows = [line.split() for line in _lines(host, path) if line.startswith(f"{protocol}:")]
    if len(rows) < 2:
        return {}
    return {name: int(value) for name, value in zip(rows[0][1:], rows[1][1:], strict=False)}
