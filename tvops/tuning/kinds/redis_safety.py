"""Which values of a server's configuration would do harm, and what the server would do with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from tvops.tuning.kinds.redis_link import DeniedError, NoAnswerError
from tvops.tuning.kinds.redis_nodes import Node
from tvops.tuning.kinds.redis_servers import STACK_ROLES
from tvops.tuning.model import Facts

MEMORY_SHARE = 75
"""Most percent of a machine's memory that maxmemory may be: a fork copies what is written meanwhile."""

HEADROOM = 10
"""Percent that maxmemory has to be above what a server holds."""

_CAP_SYS_RESOURCE = 24


class Question(msgspec.Struct, frozen=True):
    """A value that is to be set, and what its harm depends on."""

    node: Node
    key: str
    value: str
    now: str
    info: Mapping[str, str]
    facts: Facts  # of this host
    others: Sequence[Node]  # the other servers that are known


def objection(node: Node, key: str, value: str, facts: Facts, others: Sequence[Node]) -> str:
    """Tell why a server should not get a value, in one clause; empty where nothing speaks against it.

    Raises:
        NoAnswerError: it cannot be asked.
        DeniedError: it does not let us read its configuration.
    """
    rule = _RULES.get(key)
    durable = _ledger_objection(node, key, value)
    if durable or rule is None:
        return durable
    try:
        info: Mapping[str, str] = node.info()
    except DeniedError:
        info = {}
    return rule(Question(node, key, value, node.get(key) or "", info, facts, others))


def shortage(node: Node, value: str) -> str:
    """Tell what would be lost if maxmemory were ``value`` bytes; empty where there is room.

    Raises:
        NoAnswerError, DeniedError.
    """
    limit, used = number(value), number(node.info().get("used_memory", ""))
    if used is None:
        return "does not tell how much it holds, so a limit may be below it"
    if limit and limit < used * (100 + HEADROOM) // 100:
        evicts = node.get("maxmemory-policy") != "noeviction"
        effect = "it would evict at once" if evicts else "it would refuse writes"
        return f"holds {megabytes(used)} already, and needs {HEADROOM} % more than that: {effect}"
    return ""


def number(text: str) -> int | None:
    """Read a whole number of INFO or CONFIG GET; None where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def megabytes(size: int) -> str:
    """Write an amount of memory for people."""
    return f"{size / 1024**2:.1f} MB" if size < 100 * 1024**2 else f"{size // 1024**2} MB"


def _ledger_objection(node: Node, key: str, value: str) -> str:
    from tvops.engine.bus.fitness import DURABLE_CONFIG

    if key in DURABLE_CONFIG:
        good, loss = DURABLE_CONFIG[key]
        if value != good and node.holds_ledger():
            return f"holds a ledger, which needs {good}: {loss}"
    return ""


def _maxmemory(question: Question) -> str:
    node, value, now = question.node, number(question.value), number(question.now)
    if value is None:
        return ""
    if not question.info:
        return "does not tell how much it holds, so a limit may be below it"
    if lost := shortage(node, question.value):
        return lost
    if not value or (now and value <= now):
        return ""
    memory = number(question.info.get("total_system_memory", "")) or 0
    taken = value
    if node.local:
        memory = min(memory or question.facts.memory_bytes, question.facts.memory_bytes)
        taken += sum(_limit_of(other) for other in question.others if other.local)
    if memory and taken > memory * MEMORY_SHARE // 100:
        beside = f", with {megabytes(taken - value)} of other servers," if taken > value else ""
        return (
            f"{megabytes(value)}{beside} is more than {MEMORY_SHARE} % of its {megabytes(memory)} of memory: "
            "a fork for persistence or a replica could end the server"
        )
    return ""


def _limit_of(node: Node) -> int:
    try:
        return number(node.get("maxmemory") or "") or 0
    except (NoAnswerError, DeniedError):
        return 0


def _policy(question: Question) -> str:
    node, value = question.node, question.value
    if node.role in ("market", "results") and value == "noeviction":
        return f"the {node.role} streams would stop when its memory is full"
    if node.role == "market" and value.startswith("volatile-"):
        return "what the market server holds has no expiry, so nothing could go and its streams would stop"
    if value.startswith("allkeys-") and node.role != "market" and node.holds_streams():
        return f"holds streams, and {value} throws out whole streams when its memory is full"
    return ""


def _maxclients(question: Question) -> str:
    wanted, process = number(question.value), number(question.info.get("process_id", ""))
    if wanted is None or process is None or not question.node.local:
        return ""
    files = _file_limit(process)
    # The server keeps 32 files for itself.
    if files is not None and wanted + 32 > files:
        return (
            f"its process may open {files} files only, which is {files - 32} clients; raise its LimitNOFILE first"
        )
    return ""


def _file_limit(process: int) -> int | None:
    """Give how many files a server process of this host may open at most; None where that is not to be seen."""
    folder = Path("/proc") / str(process)
    try:
        if not any(name in (folder / "comm").read_text() for name in ("redis", "valkey")):
            return None  # the id is of another PID namespace
        limits = _table(folder / "limits", "Max open files")
        capabilities = _table(folder / "status", "CapEff:")
    except OSError:
        return None
    if capabilities and int(capabilities[0], 16) >> _CAP_SYS_RESOURCE & 1:
        return None  # it raises the limit by itself
    return number(limits[1]) if len(limits) > 1 else None


def _table(path: Path, name: str) -> list[str]:
    """Give the words behind a name at the beginning of a line."""
    lines = (line for line in path.read_text().splitlines() if line.startswith(name))
    return next(lines, "").removeprefix(name).split()


def _timeout(question: Question) -> str:
    if question.value == "0":
        return ""
    waiting = any(
        number(question.info.get(f, "")) for f in ("blocked_clients", "pubsub_clients", "pubsub_channels")
    )
    if waiting or question.node.role in STACK_ROLES:
        return "it would cut the connections that clients keep open between calls"
    return ""


def _io_threads(question: Question) -> str:
    threads, cpus = number(question.value), len(question.facts.cpus)
    if question.node.local and threads and threads > max(cpus, 1):
        return f"{threads} threads on {cpus} CPUs wait for each other: throughput collapses"
    return ""


def _activedefrag(question: Question) -> str:
    if question.value != "yes":
        return ""
    # hz takes no word, so the server looks at activedefrag and sets neither.
    refusal = question.node.link.refusal("CONFIG", "SET", "activedefrag", "yes", "hz", "-")
    return "this build of the server cannot defragment its memory" if "defrag" in refusal.lower() else ""


_RULES: dict[str, Callable[[Question], str]] = {
    "maxmemory": _maxmemory,
    "maxmemory-policy": _policy,
    "maxclients": _maxclients,
    "timeout": _timeout,
    "io-threads": _io_threads,
    "activedefrag": _activedefrag,
}
