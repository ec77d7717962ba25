"""The driver for the configuration of Redis and Valkey servers: CONFIG GET and CONFIG SET, server by server."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tvops.tuning import values
from tvops.tuning.kinds.redis_facts import ServerFacts, node_facts
from tvops.tuning.kinds.redis_link import DeniedError, NoAnswerError, clause
from tvops.tuning.kinds.redis_nodes import Node, node_of, open_nodes
from tvops.tuning.kinds.redis_safety import objection, shortage
from tvops.tuning.kinds.redis_servers import RedisServer, find_servers, socket_path
from tvops.tuning.model import Facts, Knob, NotWrittenError, Place, State

__all__ = ["RedisDriver", "RedisServer", "find_servers"]

EMPTY = '""'
"""How an empty value is written, as in a server's config file: `save ""`."""


class RedisDriver:
    """Knobs of kind redis, of which `where` is a CONFIG key or `client-output-buffer-limit CLASS`.

    A place is a server: its address is the URL without secrets, its name the role, or ``role/host:port`` where a
    role has several servers. A place of an earlier run is found again by its address.
    """

    def __init__(self, servers: Sequence[RedisServer], facts: Facts, force: bool = False) -> None:
        """Make a driver of ``servers``; with ``force``, `restore` lowers maxmemory below what a server holds."""
        self._servers = servers
        self._facts = facts
        self._force = force
        self._nodes: list[Node] | None = None
        self._former: list[Node] = []  # of places of an earlier run that nobody named now

    def places(self, knob: Knob) -> list[Place]:
        """Give every server that is known, each node of a cluster among them."""
        return self.servers()

    def servers(self) -> list[Place]:
        """Give every server that is known."""
        return [Place(node.address, node.name) for node in self._all()]

    def read(self, knob: Knob, place: Place) -> State:
        """Tell what CONFIG GET says; a server that is away or lacks the key makes it absent."""
        key, part = split_key(knob.where)
        try:
            node = self.node(place)
            whole = node.get(key)
            raw = part_of(whole, part)
        except NoAnswerError as error:
            return State("absent", reason=f"{place.address} {error}")
        except DeniedError as error:
            return State("denied", reason=f"{place.address} {error}", writable=False)
        if whole is None or raw is None:
            return State("absent", reason=f"{place.address} does not know {knob.where}")
        value = values.normalise(knob.type, raw) or (EMPTY if knob.type in ("text", "word") else "")
        try:
            reason = node.fixed(key, whole)
        except NoAnswerError as error:
            return State("absent", reason=f"{place.address} {error}")
        if reason == "immutable":
            return State(
                "present", value, raw, restart=f"the {node.name} server", reason="cannot be set while it runs"
            )
        return State("present", value, raw, writable=not reason, reason=reason)

    def write(self, knob: Knob, place: Place, value: str) -> None:
        """Set a canonical value with CONFIG SET."""
        self._set(knob, place, "" if value == EMPTY else values.written(knob, value))

    def restore(self, knob: Knob, place: Place, before: State) -> None:
        """Set what was there before, to the byte.

        A maxmemory that the server has outgrown since is left: going back to it would lose data or refuse orders.
        """
        if before.status != "present":
            raise NotWrittenError("its value before is not known")
        if split_key(knob.where)[0] == "maxmemory" and not self._force:
            try:
                lost = shortage(self.node(place), before.raw)
            except (NoAnswerError, DeniedError) as error:
                raise NotWrittenError(str(error)) from None
            if lost:
                raise NotWrittenError(lost)
        self._set(knob, place, before.raw)

    def objection(self, knob: Knob, place: Place, value: str) -> str:
        """Tell what the server, in its role and with what it holds, would lose with ``value``."""
        try:
            node = self.node(place)
            others = [other for other in self._all() if other is not node]
            return objection(node, split_key(knob.where)[0], "" if value == EMPTY else value, self._facts, others)
        except (NoAnswerError, DeniedError):
            return ""  # `read` tells it

    def shell(self, knob: Knob, place: Place, value: str) -> str | None:
        """Give the redis-cli command, with the password left to REDISCLI_AUTH."""
        key, part = split_key(knob.where)
        text = "" if value == EMPTY else values.written(knob, value)
        words = ["redis-cli", "-e"]
        words += ["-s", socket_path(place.address)] if place.address.startswith("unix:") else ["-u", place.address]
        try:
            node = self.node(place)
        except NoAnswerError:
            return None
        # Ends a script with that text where the variable is not set.
        secret = f'REDISCLI_AUTH="${{REDISCLI_AUTH:?the password of {place.name}}}" ' if node.has_password else ""
        words += [*node.cli_options, "CONFIG", "SET", key, f"{part} {text}" if part else text]
        return secret + shlex.join(words)

    def rewrite(self, place: Place) -> None:
        """Have the server write its configuration to its config file; raise NotWrittenError."""
        try:
            node = self.node(place)
            if node.embedded:
                raise NotWrittenError("tvops serve writes its config file at every start: set it in the profile")
            refusal = node.link.refusal("CONFIG", "REWRITE")
        except (NoAnswerError, DeniedError) as error:
            raise NotWrittenError(str(error)) from None
        if "without a config file" in refusal:
            raise NotWrittenError(
                "runs without a config file: start it with one, or give these values as arguments"
            )
        if refusal:
            raise NotWrittenError(clause(refusal))

    def facts(self) -> list[ServerFacts]:
        """Give what every server says of its health, each node of a cluster among them."""
        return [node_facts(node) for node in self._all()]

    def node(self, place: Place) -> Node:
        """Give the server of a place, also of an earlier run's; raise NoAnswerError where there is none."""
        found = [node for node in (*self._all(), *self._former) if node.address == place.address]
        for node in found:
            if node.name == place.name:
                return node
        if found:
            return found[0]
        role = place.name.partition("/")[0]
        try:
            # As far as it needs no password, an address is enough.
            node = node_of(RedisServer(role, place.address))
        except ValueError:
            raise NoAnswerError(
                f"is none of the servers that are named: give it with --redis {role}=URL"
            ) from None
        node.name = place.name
        self._former.append(node)
        return node

    def close(self) -> None:
        """End every connection."""
        for node in (*(self._nodes or ()), *self._former):
            node.link.close()

    def _all(self) -> list[Node]:
        if self._nodes is None:
            self._nodes = open_nodes(self._servers) if self._servers else []
        return self._nodes

    def _set(self, knob: Knob, place: Place, text: str) -> None:
        key, part = split_key(knob.where)
        try:
            node = self.node(place)
            refusal = node.link.refusal("CONFIG", "SET", key, f"{part} {text}" if part else text)
        except (NoAnswerError, DeniedError) as error:
            raise NotWrittenError(str(error)) from None
        if refusal:
            raise NotWrittenError(clause(refusal))


def split_key(where: str) -> tuple[str, str]:
    """Give the CONFIG key, and the client class of an output buffer limit."""
    key, _, part = where.partition(" ")
    return key, part


def part_of(raw: str | None, part: str) -> str | None:
    """Give the limits of one class out of those of all: `normal 0 0 0 slave 268435456 67108864 60 …`."""
    if raw is None or not part:
        return raw
    words = raw.split()
    classes = {words[i]: " ".join(words[i + 1 : i + 4]) for i in range(0, len(words), 4)}
    return classes.get("slave" if part == "replica" else part)
