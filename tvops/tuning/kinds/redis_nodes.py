"""What a server is asked: its configuration, its state, what it holds, and who else is in its cluster.

RedisServer ─► open_nodes ─► Node: one for each server, and for each node of a cluster
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tvops.tuning.kinds.redis_link import NOT_REDIS, DeniedError, Link, NoAnswerError
from tvops.tuning.kinds.redis_servers import STACK_ROLES, RedisServer, address_of, join_address, variable_of

SECRETS = frozenset(
    {"requirepass", "masterauth", "primaryauth", "tls-key-file-pass", "tls-client-key-file-pass", "hash-seed"}
)
"""CONFIG keys that are not asked for."""

# Immutable in every version: a CONFIG SET that names it as well never sets anything.
_NEVER_SET = ("always-show-logo", "no")

_CLI_OPTIONS = {
    "username": "--user", "ssl_ca_certs": "--cacert", "ssl_certfile": "--cert", "ssl_keyfile": "--key",
}  # fmt: skip


class Node:
    """One server that can be asked. Nothing is connected before the first question."""

    def __init__(self, server: RedisServer, address: str, options: dict[str, Any] | None) -> None:
        """Make one with ``options`` as `redis.connection.parse_url` gives them; None: its address is not known."""
        self.role = server.role
        self.embedded = server.embedded
        self.address = address
        self.name = server.role  # `open_nodes` adds the address where a role has several
        self.link = Link(options, _login_hint(server.role))
        self._options = options or {}
        self._fixed: dict[str, str] = {}
        self._holds_ledger: bool | None = None
        self._twin = ""

    @property
    def local(self) -> bool:
        """Whether it is surely a server of this host."""
        host = str(self._options.get("host", ""))
        try:
            return "path" in self._options or host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def has_password(self) -> bool:
        """Whether its URL has a password."""
        return bool(self._options.get("password"))

    @property
    def cli_options(self) -> list[str]:
        """What redis-cli needs besides the address and the password."""
        words = []
        for key, option in _CLI_OPTIONS.items():
            if self._options.get(key):
                words += [option, str(self._options[key])]
        return [*words, "--insecure"] if self._options.get("ssl_cert_reqs") == "none" else words

    def get(self, key: str) -> str | None:
        """Give what CONFIG GET says of ``key`` now; None where the server lacks it, or it is a secret.

        Raises:
            NoAnswerError, DeniedError.
        """
        return self.get_all([key]).get(key)

    def get_all(self, keys: Iterable[str]) -> dict[str, str]:
        """Give what CONFIG GET says of ``keys``, of those that the server has and that are no secrets.

        Several keys at a time take Redis 7.0 or newer. Raises NoAnswerError, DeniedError.
        """
        if self._twin:
            raise DeniedError(self._twin)
        asked = [key for key in keys if key not in SECRETS]
        answer = self.link.call("CONFIG", "GET", *asked) if asked else []
        if not isinstance(answer, list) or len(answer) % 2 or not all(isinstance(w, str) for w in answer):
            raise self.link.lost(NOT_REDIS)
        return dict(zip(answer[::2], answer[1::2], strict=True))

    def be_twin_of(self, other: Node) -> None:
        """Say of every question that this is the server of another role too, so that it is set once only."""
        self._twin = f"is the {other.role} server too, and tuned as that"

    def info(self) -> dict[str, str]:
        """Give what INFO says now; raise NoAnswerError, DeniedError."""
        answer = self.link.call("INFO")
        if not isinstance(answer, str) or "redis_version:" not in answer:
            raise self.link.lost(NOT_REDIS)
        lines = (line.partition(":") for line in answer.splitlines() if not line.startswith("#"))
        return {key: value for key, _, value in lines}

    def fixed(self, key: str, value: str) -> str:
        """Tell why ``key``, which is ``value``, cannot be set while the server runs; empty where it can be.

        "immutable": not without a restart; anything else is a reason. The question is a CONFIG SET of the key to
        what it is and of an immutable key: servers since 7.0 look for immutable keys first and then set
        none, so nothing changes, and the error names the first key that cannot be set.

        Raises:
            NoAnswerError.
        """
        if key not in self._fixed:
            try:
                refusal = self.link.refusal("CONFIG", "SET", key, value, *_NEVER_SET)
                self._fixed[key] = _reason(refusal) if f"'{key}'" in refusal else ""
            except DeniedError as error:
                self._fixed[key] = str(error)
        return self._fixed[key]

    def holds_ledger(self) -> bool:
        """Tell whether it is a ledger, by its role or by what it holds; raise NoAnswerError."""
        if self._holds_ledger is None:
            self._holds_ledger = self.role == "ledger" or self._ask("EXISTS", "ledger:{0}") == 1
        return self._holds_ledger

    def holds_streams(self) -> bool:
        """Look at up to 10,000 keys for a stream; raise NoAnswerError."""
        cursor = "0"
        for _ in range(10):
            answer = self._ask("SCAN", cursor, "COUNT", "1000", "TYPE", "stream")
            if not isinstance(answer, list) or len(answer) != 2:
                return False
            cursor, keys = answer
            if keys or cursor == "0":
                return bool(keys)
        return False

    def cluster_nodes(self) -> list[Node]:
        """Give every node of its cluster, with the credentials of this one, in the order of their addresses.

        Raises:
            NoAnswerError, DeniedError.
        """
        answer = self.link.call("CLUSTER", "NODES")
        if not isinstance(answer, str):
            raise self.link.lost(NOT_REDIS)
        nodes = [self._neighbour(line.split()) for line in answer.splitlines() if len(line.split()) >= 8]
        return sorted(nodes, key=lambda node: node.address)

    def _ask(self, *words: str) -> Any:
        """Give an answer, or None where the server or a right of its user stands against the question."""
        try:
            return self.link.call(*words)
        except DeniedError:
            return None  # e.g. another node of its cluster holds that slot

    def _neighbour(self, fields: Sequence[str]) -> Node:
        """Read `ID IP:PORT@BUSPORT[,HOSTNAME] FLAGS …`."""
        from redis.connection import SSLConnection

        place, _, hostname = fields[1].partition(",")
        host, _, port = place.partition("@")[0].rpartition(":")
        secure = issubclass(self._options.get("connection_class", object), SSLConnection)
        if secure:
            host = hostname.partition(",")[0] or host  # what its certificate is for
        host = host or str(self._options.get("host", ""))
        known = host and re.fullmatch(r"[1-9][0-9]{0,4}", port) and "noaddr" not in fields[2]
        address = f"{'rediss' if secure else 'redis'}://{join_address(host, int(port))}" if known else ""
        if "myself" in fields[2]:
            self.address = address or self.address
            return self
        server = RedisServer(self.role, "", self.embedded)
        if not known:
            return Node(server, f"node {fields[0][:8]}", None)
        strange = ("path", "db") if secure else ("path", "db", "connection_class")
        options = {key: value for key, value in self._options.items() if key not in strange}
        return Node(server, address, options | {"host": host, "port": int(port)})


def open_nodes(servers: Sequence[RedisServer]) -> list[Node]:
    """Give a node for every server, and for every node of a cluster of which one is named.

    The only node of a role is called by it (``ledger``), several are ``ledger/127.0.0.1:7001`` and so on. A server
    that does not answer is among them: whoever asks it gets the reason.
    """
    nodes: list[Node] = []
    runs: dict[str, Node] = {}
    for server in servers:
        for node in _with_neighbours(node_of(server)):
            first = runs.setdefault(_run_of(node), node)
            if first is not node and first.role == node.role:
                node.link.close()
                continue
            if first is not node:
                node.be_twin_of(first)
            nodes.append(node)
    roles = [node.role for node in nodes]
    for node in nodes:
        if roles.count(node.role) > 1:
            node.name = f"{node.role}/{node.address.rpartition('://')[2].lstrip('/')}"
    return nodes


def node_of(server: RedisServer) -> Node:
    """Give the node that a URL is of; raise ValueError where it is no URL."""
    from redis.connection import parse_url

    return Node(server, address_of(server.url), dict(parse_url(server.url)))  # type: ignore[no-untyped-call]


def _with_neighbours(node: Node) -> list[Node]:
    try:
        if node.info().get("cluster_enabled") == "1":
            return node.cluster_nodes()
    except (NoAnswerError, DeniedError):
        pass  # told by whoever asks for more
    return [node]


def _run_of(node: Node) -> str:
    """Give what tells a server from others, however it was reached."""
    try:
        return node.info().get("run_id", node.address)
    except (NoAnswerError, DeniedError):
        return node.address


def _reason(refusal: str) -> str:
    return (
        "immutable"
        if "immutable" in refusal
        else "is protected: start the server with enable-protected-configs yes"
    )


def _login_hint(role: str) -> str:
    more = "" if role in STACK_ROLES else f", and name it with --redis {role}"
    return f"set {variable_of(role)} to a URL with it{more}"
