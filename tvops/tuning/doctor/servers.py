"""The servers: memory near its limit, writes that fail, forks that stall, a monitor that sees nothing."""

from __future__ import annotations

from collections.abc import Sequence

from tvops.tuning.doctor.finding import Finding, Severity
from tvops.tuning.kinds.redis_facts import MEMORY_ALARM, ServerFacts, memory_share

FORK_US = 20_000
FRAGMENTATION = 1.5
FRAGMENTATION_FROM = 100 << 20
CLIENT_SHARE = 0.9

Check = tuple[bool, Severity, str, str, str, str]
"""Whether it is so, severity, name, what was seen, why it matters, fix."""


def server_findings(servers: Sequence[ServerFacts], tune: str) -> list[Finding]:
    """Judge every server that tuning reaches, each node of a cluster; ``tune`` is the command that tunes them."""
    return [finding for facts in servers for finding in examine_server(facts, f"{tune} --only redis")]


def examine_server(facts: ServerFacts, tune: str) -> list[Finding]:
    """Judge what one server says of itself; ``tune`` is the command that tunes it."""
    checks = (
        [_away(facts)] if facts.trouble else [*_memory(facts, tune), *_disk(facts, tune), *_service(facts, tune)]
    )
    return [
        Finding(
            severity=severity,
            about=f"redis.{about}@{facts.role}",
            what=f"{facts.role} server {facts.address}: {what}",
            why=why,
            fix=fix,
        )
        for seen, severity, about, what, why, fix in checks
        if seen
    ]


def _away(facts: ServerFacts) -> Check:
    why, fix = "its role of the stack stands still", "start it, or correct its URL"
    return True, "critical", "down", facts.trouble, why, fix


def _memory(facts: ServerFacts, tune: str) -> list[Check]:
    share = 100 * (memory_share(facts) or 0)
    full: Severity = "critical" if facts.policy == "noeviction" else "warning"
    next_step = "next it refuses writes" if facts.policy == "noeviction" else "it evicts what it holds"
    fragmentation = facts.fragmentation or 0
    fragmented = fragmentation > FRAGMENTATION and (facts.used_memory or 0) > FRAGMENTATION_FROM
    return [
        (
            share >= MEMORY_ALARM, full, "memory",
            f"{share:.0f} % of its maxmemory is in use, the alarm is at {MEMORY_ALARM} %",
            next_step, "raise its maxmemory, or trim what it holds",
        ),
        (
            facts.maxmemory == 0, "warning", "maxmemory",
            "has no maxmemory", "it grows until the kernel kills it", tune,
        ),
        (
            fragmented, "warning", "fragmentation",
            f"uses {fragmentation:.1f} times the memory that its data takes",
            "memory runs out early", "restart it at a quiet time, or set redis.activedefrag",
        ),
        (
            facts.holds_ledger and bool(facts.evicted_keys), "critical", "evicted",
            f"has evicted {facts.evicted_keys} keys and holds the ledger", "acknowledged orders may be gone", tune,
        ),
    ]  # fmt: skip


def _disk(facts: ServerFacts, tune: str) -> list[Check]:
    fork_us = facts.fork_us or 0
    return [
        (
            facts.aof_failing or facts.rdb_failing, "critical", "disk",
            "its last write to disk failed", "what it acknowledges may be lost", "see its disk and its log",
        ),
        (
            facts.holds_ledger and not facts.aof, "critical", "aof",
            "holds the ledger without an append-only file", "a restart loses acknowledged orders", tune,
        ),
        (
            fork_us > FORK_US, "warning", "fork",
            f"its latest fork stopped it for {fork_us / 1000:.0f} ms",
            "everything that it serves waited", "keep it smaller, or move saving to a replica",
        ),
    ]  # fmt: skip


def _service(facts: ServerFacts, tune: str) -> list[Check]:
    clients, most = facts.clients or 0, facts.maxclients or 0
    return [
        (
            facts.latency_threshold_ms == 0, "tuning", "latency-monitor",
            "its latency monitor is off", "LATENCY DOCTOR sees nothing", tune,
        ),
        (
            most > 0 and clients > CLIENT_SHARE * most, "warning", "clients",
            f"{clients} of {most} possible clients are connected",
            "the next ones are refused", "raise maxclients, or lower redis_max_connections",
        ),
        (
            bool(facts.rejected_connections), "note", "refused",
            f"has refused {facts.rejected_connections} connections",
            "clients could not connect", "raise maxclients",
        ),
    ]  # fmt: skip
