"""What a server says of its health: for `tvops doctor`, and for the evidence of a measurement."""

from __future__ import annotations

import msgspec

from tvops.tuning.kinds.redis_link import DeniedError, NoAnswerError
from tvops.tuning.kinds.redis_nodes import Node, node_of
from tvops.tuning.kinds.redis_safety import number
from tvops.tuning.kinds.redis_servers import RedisServer

MEMORY_ALARM = 70
"""Percent of maxmemory at which there is something to do: evictions or refused writes are near."""


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One server. Numbers that it does not tell are None."""

    role: str
    address: str  # without secrets
    trouble: str = ""  # why it could not be asked; the rest is empty then
    flavour: str = ""  # Redis or Valkey
    version: str = ""
    run_id: str = ""
    process: int | None = None
    replica: bool = False
    cluster: bool = False
    used_memory: int | None = None  # bytes
    maxmemory: int | None = None  # bytes; 0: no limit
    total_memory: int | None = None  # bytes of its host
    policy: str = ""
    fragmentation: float | None = None  # resident memory over used memory; means little below 100 MB
    evicted_keys: int | None = None
    clients: int | None = None
    maxclients: int | None = None
    rejected_connections: int | None = None
    blocked_clients: int | None = None
    replicas: int | None = None
    aof: bool = False
    aof_failing: bool = False  # its last write or rewrite failed
    rdb_failing: bool = False  # its last save in the background failed
    fork_us: int | None = None  # how long the latest fork stopped it
    latency_threshold_ms: int | None = None  # of the latency monitor; 0: it sees nothing
    holds_ledger: bool = False


def server_facts(server: RedisServer) -> ServerFacts:
    """Ask a server that nobody is connected to yet; never raises."""
    node = node_of(server)
    try:
        return node_facts(node)
    finally:
        node.link.close()


def node_facts(node: Node) -> ServerFacts:
    """Ask a server; never raises."""
    try:
        info = node.info()
        ledger = node.holds_ledger()
    except (NoAnswerError, DeniedError) as error:
        return ServerFacts(role=node.role, address=node.address, trouble=str(error))
    try:
        threshold = node.get("latency-monitor-threshold") or ""
    except (NoAnswerError, DeniedError):
        threshold = ""
    failing = {name for name, value in info.items() if name.endswith("_status") and value == "err"}
    return ServerFacts(
        role=node.role,
        address=node.address,
        flavour="Valkey" if "valkey_version" in info else "Redis",
        version=info.get("valkey_version") or info["redis_version"],
        run_id=info.get("run_id", ""),
        process=number(info.get("process_id", "")),
        replica=info.get("role") == "slave",
        cluster=info.get("cluster_enabled") == "1",
        used_memory=number(info.get("used_memory", "")),
        maxmemory=number(info.get("maxmemory", "")),
        total_memory=number(info.get("total_system_memory", "")),
        policy=info.get("maxmemory_policy", ""),
        fragmentation=_ratio(info.get("mem_fragmentation_ratio", "")),
        evicted_keys=number(info.get("evicted_keys", "")),
        clients=number(info.get("connected_clients", "")),
        maxclients=number(info.get("maxclients", "")),
        rejected_connections=number(info.get("rejected_connections", "")),
        blocked_clients=number(info.get("blocked_clients", "")),
        replicas=number(info.get("connected_slaves", "")),
        aof=info.get("aof_enabled") == "1",
        aof_failing=bool(failing & {"aof_last_write_status", "aof_last_bgrewrite_status"}),
        rdb_failing="rdb_last_bgsave_status" in failing,
        fork_us=number(info.get("latest_fork_usec", "")),
        latency_threshold_ms=number(threshold),
        holds_ledger=ledger,
    )


def memory_share(facts: ServerFacts) -> float | None:
    """Give how much of maxmemory is in use, 0 to 1; None without a limit. `MEMORY_ALARM` says what is too much."""
    if not facts.maxmemory or facts.used_memory is None:
        return None
    return facts.used_memory / facts.maxmemory


def _ratio(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
